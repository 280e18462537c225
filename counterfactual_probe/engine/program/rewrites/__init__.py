"""Rewrites of convolutions and of what stands before them: the same images with less work."""
