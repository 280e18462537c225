"""A small generator for the tests of spectral dependency."""

from __future__ import annotations

import torch
from torch import nn

import counterfactual_probe as cp


def small(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.ConvTranspose2d(6, 8, 4), nn.BatchNorm2d(8), nn.ReLU(), nn.ConvTranspose2d(8, 7, 4, 2, 1), nn.ReLU(),
        nn.ConvTranspose2d(7, 3, 4, 2, 1), nn.Tanh(),
    )  # fmt: skip


def generator(seed: int = 0) -> cp.GeneratorAdapter:
    return cp.wrap(small(seed), lambda n, rng: torch.randn(n, 6, 1, 1, generator=rng), name="small")
