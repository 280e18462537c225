"""Generators that can be opened by name, from a folder or from the hub."""
