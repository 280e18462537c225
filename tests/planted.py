"""Influence maps whose modules are known: planted blocks, noise without structure, Model 1 of S003."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

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


class Model1(nn.Module):
    """S003 §3.4: Y = Σ_k W^k leaky_relu(H_k z_k), with n units per module.

    Column i of W^k is random on the pixels I_k and zero elsewhere. The I_k overlap, but each has
    pixels of its own: the condition under which NMF identifies the modules.
    """

    def __init__(self, k: int = 3, units: int = 5, side: int = 16, seed: int = 0) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(seed)
        self.k, self.units, self.side = k, units, side
        self.into = nn.Parameter(torch.randn(k, units, generator=rng, dtype=torch.float64))
        supports = torch.zeros(k, side, side, dtype=torch.float64)
        for module in range(k):
            # Blocks of 7×7 whose corners overlap by one row and column.
            supports[module, 4 * module : 4 * module + 7, 4 * module : 4 * module + 7] = 1
        weights = torch.randn(k, units, side, side, generator=rng, dtype=torch.float64)
        self.out = nn.Parameter(weights * supports[:, None])
        self.hidden = nn.LeakyReLU(0.2)

    def forward(self, z: Tensor) -> Tensor:
        v = self.hidden((z[:, :, None] * self.into).flatten(1))
        return (v @ self.out.flatten(0, 1).flatten(1)).unflatten(1, (1, self.side, self.side))

    def sample(self, n: int, rng: torch.Generator) -> Any:
        return torch.rand(n, self.k, generator=rng, dtype=torch.float64)

    def truth(self) -> Array:
        return np.repeat(np.arange(self.k), self.units)
