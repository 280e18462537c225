"""Sharing generators: a repository of the hub with weights, configuration, modules, and a card of what was measured."""
