"""Generators whose modules are known: how they share the image, and how they share the latents."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

import counterfactual_probe as cp
from support.toy_modules import vectors

SIZES = (10, 8, 6)  # channels of the modules
COLUMNS = (2, 3, 3)  # of the image's eight, where each module acts if they are apart
Image = Literal["apart", "mixed", "product"]
MODULES = {f"part {k}": {"hidden": list(range(sum(SIZES[:k]), sum(SIZES[: k + 1])))} for k in range(len(SIZES))}


class Parts(nn.Module):
    """24 channels in three modules, and an image of 3×8×8.

    Args:
        image: "apart", a linear function of which each module has columns of its own; "mixed", a function of all
            channels in every pixel, that is not linear; "product", the product of an image of each.
        own: whether each module has latents of its own, so that all combinations of their values occur.
    """

    def __init__(self, image: Image = "apart", *, own: bool = True, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(3)
        self.image = image
        linear, self.drawn = nn.Linear(6 if own else 2, sum(SIZES)), nn.Linear(sum(SIZES), 3 * 8 * 8)
        owner = torch.arange(3).repeat_interleave(torch.tensor(SIZES))
        column = torch.arange(3).repeat_interleave(torch.tensor(COLUMNS)).repeat(3 * 8)
        with torch.no_grad():
            for layer in (linear, self.drawn):
                layer.weight.copy_(torch.randn(layer.weight.shape, generator=rng))
                layer.bias.copy_(torch.randn(layer.bias.shape, generator=rng))
            if own:
                linear.weight *= (owner[:, None] == torch.arange(3).repeat_interleave(2)).float()
            if image == "apart":
                self.drawn.weight *= (column[:, None] == owner).float()
        self.register_buffer("owner", owner)
        self.hidden = nn.Sequential(linear, nn.Tanh())
        self.to(dtype)

    def forward(self, z: Tensor) -> Tensor:
        hidden = self.hidden(z)
        if self.image == "product":
            factors = [(hidden * (self.owner == k)) @ self.drawn.weight.T * 0.3 for k in range(3)]
            made = (1 + factors[0]) * (1 + factors[1]) * (1 + factors[2])
        else:
            made = self.drawn(hidden)
        return (torch.tanh(made) if self.image == "mixed" else made).view(-1, 3, 8, 8)


def parts(image: Image = "apart", *, own: bool = True, dtype: torch.dtype = torch.float64) -> cp.GeneratorAdapter:
    module = Parts(image, own=own, dtype=dtype)
    sampler = vectors(6 if own else 2, dtype)
    return cp.wrap(module, sampler, layers="hidden", image_range=(-60, 60), name=f"{image} parts")


def exchanged(gen: cp.GeneratorAdapter, modules: Any = MODULES, **options: Any) -> cp.Exchanged:
    """With as little to do as a test needs."""
    return cp.exchange(gen, modules, **({"n_pairs": 12, "controls": 0, "images": 0} | options))
