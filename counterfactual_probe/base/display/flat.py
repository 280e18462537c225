"""Sound and volumes as pictures: what is not of two dimensions, brought into two."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]

_SLICES = 4  # of a volume
_ASPECT = 8  # of a strip


def as_pictures(values: Floats, dims: int) -> Floats:
    """Values whose last ``dims`` dimensions are positions, with two of them.

    >>> as_pictures(np.zeros((5, 1, 64)), 1).shape, as_pictures(np.zeros((5, 8, 6, 6)), 3).shape
    ((5, 1, 8, 64), (5, 6, 24))

    A line becomes a strip, as of a spectrogram; of a volume up to four slices, evenly spread, stand side by side.
    """
    if dims == 2:
        return values
    *leading, last = values.shape[: values.ndim - dims + 1]
    if dims == 1:
        return values[..., None, :].repeat(max(1, last // _ASPECT), axis=-2)
    height, width = values.shape[-2:]
    depth = values.reshape(*leading, -1, height, width)
    total = depth.shape[-3]
    few = min(_SLICES, total)
    chosen = [(2 * place + 1) * total // (2 * few) for place in range(few)]
    return np.concatenate([depth[..., at, :, :] for at in chosen], axis=-1)
