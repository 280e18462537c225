"""Decoders: codes to images with values 0…1. The code enters at once, or its variables at different depths."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .backbone import START, Backbone, decoder_block, mlp

_DENSE = (128, 256)
_HIDDEN = (64, 128)


class Decoder(nn.Module):
    """The plain decoder: ``dense`` to 2×2 maps, then ``block1``, ``block2``, … and ``image``."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        shape = (backbone.width, START, START)
        self.dense = nn.Sequential(*mlp(backbone.latent, *_DENSE, backbone.width * START**2), nn.Unflatten(1, shape))
        self.names = _add_decoder_blocks(self, backbone)

    def forward(self, codes: Tensor, *, logits: bool = False) -> Tensor:
        x = self.dense(codes)
        for name in self.names:
            x = self.get_submodule(name)(x)
        return x if logits else torch.sigmoid(x)


class StructuralTransform(nn.Module):
    """Str-Tfm (S004 §2.2): multiplies every map by exp(a) and adds b; a small network makes both from one variable."""

    def __init__(self, size: int, channels: int) -> None:
        super().__init__()
        self.mlp = mlp(size, *_HIDDEN, 2 * channels)

    def forward(self, x: Tensor, variable: Tensor) -> Tensor:
        bias, log_scale = self.mlp(variable)[:, :, None, None].chunk(2, 1)
        result: Tensor = x * log_scale.exp() + bias
        return result


class StructuralDecoder(nn.Module):
    """Starts from learned maps ``root``, the same for all images, which variables transform at different depths.

    The first variable enters at the 2×2 maps, the last nearest to the image.

    Args:
        variables: the number of transforms, ``transform1``, ``transform2``, …
        adaptive: each transform receives the whole code instead of its part (AdaAE).
    """

    def __init__(self, backbone: Backbone, variables: int, *, adaptive: bool = False) -> None:
        super().__init__()
        self.size = backbone.latent if adaptive else backbone.split(variables)
        self.adaptive = adaptive
        self.places = {place: i for i, place in enumerate(backbone.placed(variables), 1)}
        self.root = nn.Parameter(torch.randn(backbone.width, START, START))
        for i in self.places.values():
            self.add_module(f"transform{i}", StructuralTransform(self.size, backbone.width))
        self.names = _add_decoder_blocks(self, backbone)

    def forward(self, codes: Tensor, *, logits: bool = False) -> Tensor:
        x = self.root.expand(len(codes), -1, -1, -1)
        for number, name in enumerate(self.names, 1):
            if number in self.places:
                i = self.places[number]
                variable = codes if self.adaptive else codes[:, (i - 1) * self.size : i * self.size]
                x = self.get_submodule(f"transform{i}")(x, variable)
            x = self.get_submodule(name)(x)
        return x if logits else torch.sigmoid(x)


class Rung(nn.Module):
    """Concatenates further maps, each constant over the image, which a small network makes from one variable."""

    def __init__(self, size: int, channels: int) -> None:
        super().__init__()
        self.mlp = mlp(size, *_HIDDEN, channels)

    def forward(self, x: Tensor, variable: Tensor) -> Tensor:
        maps = self.mlp(variable)[:, :, None, None]
        return torch.cat([x, maps.expand(-1, -1, *x.shape[2:])], 1)


class LadderDecoder(nn.Module):
    """As the structural decoder, with a :class:`Rung` in place of each transform (VLAE; Zhao et al. 2017)."""

    def __init__(self, backbone: Backbone, variables: int) -> None:
        super().__init__()
        # A quarter of the width, such that the remaining maps are divisible by the groups of their norm.
        added = backbone.groups * max(1, backbone.width // (4 * backbone.groups))
        kept = backbone.width - added
        self.size = backbone.split(variables)
        self.places = {place: i for i, place in enumerate(backbone.placed(variables), 1)}
        self.root = nn.Parameter(torch.randn(kept, START, START))
        for i in self.places.values():
            self.add_module(f"rung{i}", Rung(self.size, added))
        self.names = _add_decoder_blocks(self, backbone, {place - 1: kept for place in self.places})

    def forward(self, codes: Tensor, *, logits: bool = False) -> Tensor:
        x = self.root.expand(len(codes), -1, -1, -1)
        for number, name in enumerate(self.names, 1):
            if number in self.places:
                i = self.places[number]
                x = self.get_submodule(f"rung{i}")(x, codes[:, (i - 1) * self.size : i * self.size])
            x = self.get_submodule(name)(x)
        return x if logits else torch.sigmoid(x)


def _add_decoder_blocks(module: nn.Module, backbone: Backbone, outputs: dict[int, int] | None = None) -> list[str]:
    """Add the blocks in order; the last makes the image. ``outputs`` are numbers of maps that are not the width."""
    names = []
    for number in range(1, backbone.convolutions + 1):
        last = number == backbone.convolutions
        after = backbone.colours if last else (outputs or {}).get(number, backbone.width)
        names.append("image" if last else f"block{number}")
        module.add_module(names[-1], decoder_block(backbone, number, after))
    return names
