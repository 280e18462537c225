"""Edits: one module of given pictures or latents set to the values of others, by the module's name."""
