"""Generators of known families, and the pretrained ones that the registry lists.

Installs as ``counterfactual_probe.adapters``. Nothing of the core imports it: entry points lead here.
"""
