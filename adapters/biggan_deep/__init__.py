"""BigGAN-deep (Brock et al. 2019), class-conditional: the published generators, and small ones that are trained."""

from ..cards.biggan_deep import DEEP_128, DEEP_256, DEEP_512, FOLDERS, REPOSITORIES
from .discriminator import BigGANDiscriminator, biggan_discriminator
from .generator import (
    ARCHITECTURE,
    CONFIGS,
    CONVOLUTIONS,
    BigGANDeep,
    biggan_deep,
    genblock,
    random_biggan_deep,
    truncated_normal,
)
from .module import BigGANDeepModule

__all__ = [
    "ARCHITECTURE",
    "CONFIGS",
    "CONVOLUTIONS",
    "DEEP_128",
    "DEEP_256",
    "DEEP_512",
    "FOLDERS",
    "REPOSITORIES",
    "BigGANDeep",
    "BigGANDeepModule",
    "BigGANDiscriminator",
    "biggan_deep",
    "biggan_discriminator",
    "genblock",
    "random_biggan_deep",
    "truncated_normal",
]
