"""Boundary-equilibrium GANs (Berthelot et al. 2017) and how they are trained."""

from .generator import ARCHITECTURE, BEGANDiscriminator, BEGANEncoder, BEGANGenerator, began, began_discriminator

__all__ = ["ARCHITECTURE", "BEGANDiscriminator", "BEGANEncoder", "BEGANGenerator", "began", "began_discriminator"]
