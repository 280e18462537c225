"""Inversion: latents of given pictures, found by descending from several starts, and how far off their images are."""
