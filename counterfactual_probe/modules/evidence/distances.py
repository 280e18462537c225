"""How far apart the maps of channels are, without what their noise adds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor

from ..clustering import Array

_HALVES = 4  # splits of the blocks into halves, which say how much noise a map has
_RESOLVED = 0.25  # of the noise of two maps: smaller squared distances cannot be told from it


def noise_free_distances(blocks: Tensor, rows_of: Callable[[Array], Array]) -> Array:
    """(channels, channels) distances between rows of features, ∞ on the diagonal.

    ``blocks`` are sums of maps over blocks of pairs, (channels, blocks, …), and ``rows_of`` makes features of sums of
    maps. ‖a − b‖² is expected to exceed the squared distance of the true features by the noise of both, and that of one
    is a quarter of ‖half − other half‖²: a half has twice the noise, and both halves have their own. What is left once
    the noise is taken away is at least a quarter of it.
    """
    number = blocks.shape[1]

    def rows(chosen: np.ndarray | slice) -> Array:
        return rows_of(blocks[:, chosen].double().sum(1).numpy())

    all_rows, noise = rows(slice(None)), np.zeros(len(blocks))
    for split in range(_HALVES):
        order = np.random.default_rng([number, split]).permutation(number)
        one, other = rows(order[: number // 2]), rows(order[number // 2 :])
        noise += np.square(one - other).sum(1) / (4 * _HALVES)
    squares = np.square(all_rows).sum(1)
    both = noise[:, None] + noise
    distances = squares[:, None] + squares - 2 * all_rows @ all_rows.T - both
    distances = np.sqrt(np.maximum(distances, np.maximum(_RESOLVED * both, 0)))
    np.fill_diagonal(distances, np.inf)
    return np.asarray(distances)
