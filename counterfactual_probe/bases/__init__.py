"""Bases: features of a layer's activations as units, fitted on a generator's own, given as a matrix, or a dictionary's.

>>> import torch, counterfactual_probe as cp
>>> basis = cp.bases.Linear(torch.eye(4)[:3])  # three of four channels
>>> codes = basis.encode(torch.ones(2, 4))
>>> basis.decode(codes)
tensor([[1., 1., 1., 0.],
        [1., 1., 1., 0.]])
"""

from .basis import Basis, LinearBasis
from .components import ICA, PCA
from .dictionary import Dictionary
from .linear import Linear
from .nonnegative import NMF

__all__ = ["ICA", "NMF", "PCA", "Basis", "Dictionary", "Linear", "LinearBasis"]
