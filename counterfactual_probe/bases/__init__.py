"""Bases: features of a layer's activations as units, fitted on a generator's own, given as a matrix, or a dictionary's.

>>> import torch, counterfactual_probe as cp
>>> basis = cp.bases.Linear(torch.eye(4)[:3])  # three of four channels
>>> codes = basis.encode(torch.ones(2, 4))
>>> basis.decode(codes)
tensor([[1., 1., 1., 0.],
        [1., 1., 1., 0.]])
"""

from __future__ import annotations

import os
from contextlib import suppress

from ..base.errors import ProbeError
from ..base.files import OfAnotherKind
from .basis import Basis, LinearBasis
from .components import ICA, PCA
from .dictionary import Dictionary
from .linear import Linear
from .nonnegative import NMF


def load(path: str | os.PathLike[str]) -> LinearBasis:
    """A basis of any class but :class:`Dictionary`, from the file that its ``save`` wrote.

    >>> load(Linear(torch.eye(2)).save("eye.safetensors"))  # doctest: +SKIP
    Linear(any layer: 2 features of 2 channels)
    """
    kinds: tuple[type[LinearBasis], ...] = (PCA, ICA, NMF, Linear)
    for kind in kinds:
        with suppress(OfAnotherKind):
            return kind.load(path)
    raise ProbeError(f"{path} holds no basis; give one made by .save() of PCA, ICA, NMF or Linear")


__all__ = ["ICA", "NMF", "PCA", "Basis", "Dictionary", "Linear", "LinearBasis", "load"]
