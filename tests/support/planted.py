"""Influence maps whose modules are known: planted blocks, noise without structure."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def planted(k: int = 3, each: int = 6, side: int = 16, noise: float = 0.05, seed: int = 0) -> tuple[Array, Array]:
    """Maps (k·each, side, side) with k disjoint active stripes, in random order, and their modules."""
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.repeat(np.arange(k), each))
    maps = noise * rng.random((k * each, side, side))
    width = side // k
    for row, module in enumerate(truth):
        maps[row, :, module * width : (module + 1) * width] += 0.5 + rng.random()
    return maps, truth


def structureless(channels: int = 30, side: int = 16, seed: int = 0) -> Array:
    return np.random.default_rng(seed).random((channels, side, side))
