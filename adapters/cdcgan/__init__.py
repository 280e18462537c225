"""Class-conditional DCGANs (Mirza and Osindero 2014), from a state dict and the classes' names."""

from ..cards.cdcgan import EYE_COLOURS, EYES
from .generator import CDCGAN, ClassSampler, ConditionalDCGANGenerator, cdcgan

__all__ = ["CDCGAN", "EYES", "EYE_COLOURS", "ClassSampler", "ConditionalDCGANGenerator", "cdcgan"]
