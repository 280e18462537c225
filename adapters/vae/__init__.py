"""Variational autoencoders (S001) and how they are trained, plainly or for spectral independence (S000)."""

from .generator import ARCHITECTURE, VAE, VAEAdapter, VAEDecoder, VAEEncoder, vae

__all__ = ["ARCHITECTURE", "VAE", "VAEAdapter", "VAEDecoder", "VAEEncoder", "vae"]
