"""Whether a transformed layer gives a transformed image, scale by scale."""
