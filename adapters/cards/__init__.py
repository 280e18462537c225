"""The pretrained generators: the registry entry of each, and how it is loaded.

Listing the entries must not take the seconds that importing torch takes: whatever needs torch is imported when a
generator is loaded.
"""
