"""Modules against parts of a scene that are known."""
