"""The autoencoders of S004 as generators, and how they are trained."""

from .generator import ARCHITECTURE, AutoencoderAdapter, autoencoder

__all__ = ["ARCHITECTURE", "AutoencoderAdapter", "autoencoder"]
