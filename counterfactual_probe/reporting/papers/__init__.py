"""The papers' study: their pipeline on two samples of latents, for many numbers of modules, with its figures."""
