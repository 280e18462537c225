"""DCGANs (Radford et al. 2015): of any depth and widths, from a state dict alone."""

from ..cards.dcgan import FACES
from .generator import DCGAN, DCGANDiscriminator, DCGANGenerator, dcgan, dcgan_discriminator, face_regions

__all__ = [
    "DCGAN",
    "FACES",
    "DCGANDiscriminator",
    "DCGANGenerator",
    "dcgan",
    "dcgan_discriminator",
    "face_regions",
]
