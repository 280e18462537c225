"""Spectral dependency of successive convolutions, and of activation maps and filters (S002, S000 §3 and 4)."""

from .dependency import SpectralDependency
from .distribution import EDGES
from .independence import SpectralIndependence
from .loss import spectral_independence_loss
from .ratios import ActivationRatios, SpectralRatios, SpectralTable
from .removal import FilterRemoval
from .tracing.pathways import ConvolutionPair

__all__ = [
    "EDGES",
    "ActivationRatios",
    "ConvolutionPair",
    "FilterRemoval",
    "SpectralDependency",
    "SpectralIndependence",
    "SpectralRatios",
    "SpectralTable",
    "spectral_independence_loss",
]
