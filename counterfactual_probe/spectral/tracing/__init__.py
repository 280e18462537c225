"""Which convolution of a network reaches which, and through what."""
