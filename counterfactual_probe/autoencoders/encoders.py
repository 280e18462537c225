"""Encoders: images with values 0…1 to codes, or to the means and log-deviations of codes, concatenated."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from .backbone import START, Backbone, encoder_blocks, mlp

_DENSE = (256, 128)
_RUNG = (128, 64)


class Encoder(nn.Module):
    """``block1``, ``block2``, … and ``dense``, which maps the last 2×2 maps to ``outputs`` numbers."""

    image_size: Tensor

    def __init__(self, backbone: Backbone, outputs: int) -> None:
        super().__init__()
        self.names = _add_encoder_blocks(self, backbone)
        self.dense = nn.Sequential(nn.Flatten(), *mlp(backbone.width * START**2, *_DENSE, outputs))

    def forward(self, images: Tensor) -> Tensor:
        x = images
        for name in self.names:
            x = self.get_submodule(name)(x)
        codes: Tensor = self.dense(x)
        return codes

    def heads(self) -> list[nn.Linear]:
        """The last layer; in a variational model the second half of its outputs are log-deviations."""
        return [cast("nn.Linear", self.dense[-1])]


class LadderEncoder(nn.Module):
    """Rungs at several depths predict the mean and log-deviation of one variable each (Zhao et al. 2017).

    A rung's input is the maximum of every map. The deepest rung is that of the first variable.
    """

    image_size: Tensor

    def __init__(self, backbone: Backbone, variables: int) -> None:
        super().__init__()
        self.names = _add_encoder_blocks(self, backbone)
        size = backbone.split(variables)
        # The decoder's places in reverse order.
        self.places = {backbone.convolutions + 1 - place: i for i, place in enumerate(backbone.placed(variables), 1)}
        for i in self.places.values():
            self.add_module(f"rung{i}", mlp(backbone.width, *_RUNG, 2 * size))

    def forward(self, images: Tensor) -> Tensor:
        x, posteriors = images, {}
        for number, name in enumerate(self.names, 1):
            x = self.get_submodule(name)(x)
            if number in self.places:
                i = self.places[number]
                posteriors[i] = self.get_submodule(f"rung{i}")(x.amax((2, 3))).chunk(2, 1)
        means, log_deviations = zip(*(posteriors[i] for i in sorted(posteriors)), strict=True)
        return torch.cat([*means, *log_deviations], 1)

    def heads(self) -> list[nn.Linear]:
        """The last layer of every rung; the second half of its values are log-deviations."""
        rungs = [cast("nn.Sequential", self.get_submodule(f"rung{i}")) for i in self.places.values()]
        return [cast("nn.Linear", rung[-1]) for rung in rungs]


def _add_encoder_blocks(module: nn.Module, backbone: Backbone) -> list[str]:
    # Stored, because the tensors' shapes do not determine it.
    module.register_buffer("image_size", torch.tensor(backbone.image_size))
    names = []
    for number, block in enumerate(encoder_blocks(backbone), 1):
        names.append(f"block{number}")
        module.add_module(names[-1], block)
    return names
