"""A basis from a matrix of one's own."""

from __future__ import annotations

from typing import Any

import torch

from ..base.errors import ProbeError
from ..base.formats.elsewhere import plain_tensor
from .basis import LinearBasis

_WORST_CONDITION = 1e8


class Linear(LinearBasis):
    """Features along the rows of a matrix (features, channels); codes are least squares.

    >>> import torch
    >>> Linear(torch.eye(3)).encode(torch.tensor([[1.0, 2.0, 3.0]])).round()
    tensor([[1., 2., 3.]])

    Args:
        matrix: (features, channels), a row for what a unit of each feature adds to the channels at a position.
        complete: whether it must explain every activation, so that all features are all channels; a ProbeError says if
            it does not.
    """

    def __init__(self, matrix: Any, *, complete: bool = False) -> None:
        super().__init__()
        values = (
            plain_tensor(matrix, "the matrix of the basis", "an array (features, channels)").detach().double().cpu()
        )
        if values.dim() != 2 or 0 in values.shape:
            raise ProbeError(f"the matrix of the basis has shape {tuple(values.shape)}; give (features, channels)")
        if not bool(torch.isfinite(values).all()):
            raise ProbeError("the matrix of the basis holds NaN or infinite values; give numbers")
        if complete:
            singular = torch.linalg.svdvals(values)
            if len(values) < values.shape[1] or float(singular[-1]) * _WORST_CONDITION < float(singular[0]):
                rank = int((singular > float(singular[0]) / _WORST_CONDITION).sum())
                raise ProbeError(
                    f"the basis has rank {rank} and there are {values.shape[1]} channels, so it is not complete; give "
                    "as many independent rows, or leave complete=True out"
                )
        self._set(values, torch.linalg.pinv(values), torch.zeros(values.shape[1]))
