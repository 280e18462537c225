"""Generators of known families, and the pretrained ones of the registry. Installs as
``counterfactual_probe.adapters``."""
