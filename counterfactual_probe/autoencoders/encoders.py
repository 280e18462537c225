"""From images in 0…1 to codes, or to means and log-deviations of codes beside each other."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from .backbone import START, Backbone, encoder_blocks, mlp

_DENSE = (256, 128)
_RUNG = (128, 64)


class Encoder(nn.Module):
    """``block1`` … and ``dense``, from the last 2×2 maps to ``outputs`` numbers."""

    image_size: Tensor

    def __init__(self, backbone: Backbone, outputs: int) -> None:
        super().__init__()
        self.names = _add_blocks(self, backbone)
        self.dense = nn.Sequential(nn.Flatten(), *mlp(backbone.width * START**2, *_DENSE, outputs))

    def forward(self, images: Tensor) -> Tensor:
        x = images
        for name in self.names:
            x = self.get_submodule(name)(x)
        codes: Tensor = self.dense(x)
        return codes

    def heads(self) -> list[nn.Linear]:
        """The last layer, whose second half are log-deviations in a variational model."""
        return [cast("nn.Linear", self.dense[-1])]


class LadderEncoder(nn.Module):
    """A rung reads means and log-deviations of its variable off the largest value of every map (Zhao et al. 2017).

    The deepest rung is the first variable's.
    """

    image_size: Tensor

    def __init__(self, backbone: Backbone, variables: int) -> None:
        super().__init__()
        self.names = _add_blocks(self, backbone)
        size = backbone.split(variables)
        # The mirror image of the decoder's places.
        self.places = {backbone.convolutions + 1 - place: i for i, place in enumerate(backbone.placed(variables), 1)}
        for i in self.places.values():
            self.add_module(f"rung{i}", mlp(backbone.width, *_RUNG, 2 * size))

    def forward(self, images: Tensor) -> Tensor:
        x, found = images, {}
        for number, name in enumerate(self.names, 1):
            x = self.get_submodule(name)(x)
            if number in self.places:
                i = self.places[number]
                found[i] = self.get_submodule(f"rung{i}")(x.amax((2, 3))).chunk(2, 1)
        means, log_deviations = zip(*(found[i] for i in sorted(found)), strict=True)
        return torch.cat([*means, *log_deviations], 1)

    def heads(self) -> list[nn.Linear]:
        """The last layer of every rung; the second half of its values are log-deviations."""
        rungs = [cast("nn.Sequential", self.get_submodule(f"rung{i}")) for i in self.places.values()]
        return [cast("nn.Linear", rung[-1]) for rung in rungs]


def _add_blocks(module: nn.Module, backbone: Backbone) -> list[str]:
    # No tensor tells it: images of any size that is halved as often give the same shapes.
    module.register_buffer("image_size", torch.tensor(backbone.image_size))
    names = []
    for number, block in enumerate(encoder_blocks(backbone), 1):
        names.append(f"block{number}")
        module.add_module(names[-1], block)
    return names
