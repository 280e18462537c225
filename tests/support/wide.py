"""A small generator with enough channels to be split into thirds."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import counterfactual_probe as cp
from support import toys
from support.toys import seeded


class Wide(nn.Module):
    """Enough channels to be split into thirds."""

    def __init__(self) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.ConvTranspose2d(5, 12, 4),
            nn.ReLU(),
            nn.ConvTranspose2d(12, 9, 4, 2, 1),
            nn.ReLU(),
            nn.ConvTranspose2d(9, 3, 4, 2, 1),
            nn.Tanh(),
        )

    def forward(self, z: Tensor) -> Tensor:
        image: Tensor = self.main(z[:, :, None, None])
        return image


def wide() -> cp.GeneratorAdapter:
    with seeded(3):
        return cp.wrap(Wide(), toys.vectors(5, torch.float32))
