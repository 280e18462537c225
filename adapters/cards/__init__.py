"""The pretrained generators: what must be said about each, and how it is loaded.

A listing shows these cards, and should not take the seconds that torch takes: what needs torch is imported when a
generator is loaded.
"""
