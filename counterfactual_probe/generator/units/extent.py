"""Where in a layer a swap happens, and how far it goes: masks and strengths."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from numbers import Real
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d

from ...base.errors import ProbeError, brief
from ...base.formats.elsewhere import plain_tensor
from ..adapter import GeneratorAdapter
from ..layers.info import LayerInfo
from .parsing import by_layer
from .space import Space, digest

# A mask at a layer's size or the image's, or one for each pair; or one of these per layer.
Where: TypeAlias = "Tensor | Any | None"
Strength: TypeAlias = "float | Tensor | Sequence[float]"

_POOLS: dict[int, Callable[..., Tensor]] = {1: adaptive_avg_pool1d, 2: adaptive_avg_pool2d, 3: adaptive_avg_pool3d}


@dataclass(frozen=True, eq=False)
class Extent:
    """How much of the new values each position takes: base + strength · mask · (new − base).

    Attributes:
        masks: by layer, (1 or pairs, *positions) from 0 to 1; a layer without one is set everywhere.
        strengths: (1 or pairs,); None is 1.
        about: what a result records.
    """

    masks: Mapping[str, Tensor] = field(default_factory=dict)
    strengths: Tensor | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    def by_call(self, space: Space) -> Extent:
        """The same for each of the calls that the layers stand for."""
        return replace(self, masks=space.by_call({**self.masks, **dict(_of_halves(space, self.masks))}))

    def mask(self, layer: str, numbers: Sequence[int], like: Tensor) -> Tensor | None:
        """(samples, 1, *positions) for the pairs of these numbers."""
        mask = self.masks.get(layer)
        return None if mask is None else _rows(mask, numbers).to(like)[:, None]

    def strength(self, numbers: Sequence[int], like: Tensor) -> Tensor | None:
        """(samples, 1, …), of as many dimensions as ``like``."""
        if self.strengths is None:
            return None
        return _rows(self.strengths, numbers).to(like).view(-1, *[1] * (like.dim() - 1))

    def weight(self, layer: str, numbers: Sequence[int], like: Tensor) -> Tensor | None:
        """Strength times mask, (samples, 1, …) for views (samples, channels, …) such as ``like``."""
        mask, strength = self.mask(layer, numbers, like), self.strength(numbers, like)
        if mask is None or strength is None:
            return strength if mask is None else mask
        return mask * strength


def _of_halves(space: Space, masks: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Masks of the layers of which one half of a folded batch is named: nothing else of them is set."""
    for info in space.layers:
        if info.half is None or info.fold is None:
            continue
        number = half_number(space.generator, info)
        mask = torch.zeros(1, *info.size, dtype=torch.float64, device="cpu")
        mask.select(1 + info.fold, number).fill_(1)
        yield info.name, mask * masks[info.name] if info.name in masks else mask


def half_number(generator: GeneratorAdapter, layer: LayerInfo) -> int:
    """Which half of a folded batch a layer's name means."""
    known, count = generator.halves, layer.size[layer.fold or 0]
    if layer.half not in known or known[layer.half] >= count:
        names = ", ".join(known) or "none, since nothing tells which is which: set generator.halves, {'conditional': 1}"
        raise ProbeError(f"layer {layer.name!r} names the half {layer.half!r}, and those known are {names}")
    return known[layer.half]


def _rows(values: Tensor, numbers: Sequence[int]) -> Tensor:
    return values.expand(len(numbers), *values.shape[1:]) if len(values) == 1 else values[list(numbers)]


def extent_of(space: Space, where: Where, strength: Strength, n_pairs: int) -> Extent:
    """Where and how far, checked against the layers, the image and the number of pairs."""
    about: dict[str, Any] = {}
    masks: dict[str, Tensor] = {}
    if where is not None:
        for info, given in _by_layer(space, where):
            mask = _values(given)
            masks[info.name] = _fitted(mask, info, space.generator.image_size[1:], n_pairs)
        about["where"] = {name: digest(mask) for name, mask in masks.items()}
    strengths = _strengths(strength, n_pairs)
    if strengths is not None:
        about["strength"] = float(strengths[0]) if len(strengths) == 1 else {"sha256": digest(strengths)}
    return Extent(masks, strengths, about)


def _by_layer(space: Space, where: Any) -> Iterator[tuple[LayerInfo, Any]]:
    if not isinstance(where, Mapping):
        yield from ((info, where) for info in space.layers)
        return
    given = by_layer(where, space.generator, "where's keys")
    if extra := given.keys() - space.coordinates.keys():
        raise ProbeError(f"where names layer {min(extra)!r}, which is not among the layers given; leave it out")
    yield from ((info, given[info.name]) for info in space.layers if info.name in given)


def _values(given: Any) -> Tensor:
    """A mask's values from 0 to 1, checked."""
    mask = plain_tensor(given, "the mask given as where", "an array of booleans, or of numbers from 0 to 1")
    mask = mask.detach().double()
    if not bool(torch.isfinite(mask).all()):
        raise ProbeError("the mask given as where holds NaN or infinite values; give booleans, or numbers from 0 to 1")
    if mask.numel() and (float(mask.min()) < 0 or float(mask.max()) > 1):
        raise ProbeError(
            f"the mask given as where ranges from {float(mask.min()):g} to {float(mask.max()):g}; give booleans, or "
            "numbers from 0 to 1 (strength= goes beyond)"
        )
    return mask


def _fitted(mask: Tensor, layer: LayerInfo, image: tuple[int, ...], n_pairs: int) -> Tensor:
    """(1 or pairs, *positions) of the layer, from a mask of its size or of the image's."""
    if not layer.size:
        raise ProbeError(
            f"layer {layer.name!r} gives vectors, which have no positions; leave where= out, or set others"
        )
    for size in (layer.size, image):
        single = tuple(mask.shape) == size
        if single or tuple(mask.shape) == (n_pairs, *size):
            fitted = _at_layer(mask[None] if single else mask, layer, image)
            _require_some(fitted)
            return fitted.to(torch.float64)
    sizes = " or ".join("×".join(map(str, size)) for size in dict.fromkeys([layer.size, image]))
    raise ProbeError(
        f"the mask given as where is {'×'.join(map(str, mask.shape)) or 'a number'} and layer {layer.name!r} takes "
        f"{sizes}, or {n_pairs} of these, one for each pair; resize it"
    )


def _require_some(mask: Tensor) -> None:
    empty = (~mask.flatten(1).any(1)).nonzero()[:, 0].tolist()
    if empty:
        which = "" if len(mask) == 1 else f" of pair {empty[0]}"
        raise ProbeError(f"the mask given as where{which} is all False; give one that is above 0 somewhere")


def _at_layer(mask: Tensor, layer: LayerInfo, image: tuple[int, ...]) -> Tensor:
    """Masks (n, *size) at the layer's positions: each takes the mean of the mask over the part it stands for."""
    if tuple(mask.shape[1:]) == layer.size:
        return mask
    size = layer.size
    if len(size) == 1 and len(image) > 1:
        size = patch_grid(layer, image)
    if len(size) != len(image):
        raise ProbeError(
            f"the mask given as where is of the image's size, {'×'.join(map(str, image))}, and layer {layer.name!r} "
            f"has {len(size)} dimensions of positions; give a mask of {'×'.join(map(str, layer.size))}"
        )
    pooled = _POOLS[len(size)](mask[:, None], size)[:, 0]
    return pooled.reshape(len(mask), *layer.size)


def patch_grid(layer: LayerInfo, image: tuple[int, ...]) -> tuple[int, ...]:
    """The grid of patches that a layer's tokens stand for, of the image's proportions, row by row.

    >>> patch_grid(LayerInfo("blocks.0", 8, (32,)), (16, 32))
    (4, 8)
    """
    tokens = layer.size[0]
    scale = (tokens / prod(image)) ** (1 / len(image))
    grid = tuple(max(1, round(side * scale)) for side in image)
    if prod(grid) != tokens:
        raise ProbeError(
            f"layer {layer.name!r} has {tokens} tokens, which are no grid of patches of an image of "
            f"{'×'.join(map(str, image))}; give a mask of {tokens} values, one for each token"
        )
    return grid


def _strengths(given: Any, n_pairs: int) -> Tensor | None:
    if isinstance(given, (str, bytes, bool, np.bool_)) or given is None:
        raise ProbeError(f"strength is {brief(given)}; give a number, or one for each pair")
    if isinstance(given, Real):
        values = torch.tensor([float(given)], dtype=torch.float64, device="cpu")
    else:
        values = plain_tensor(given, "the strengths", "one number for each pair").detach().double()
        values = values[None] if values.dim() == 0 else values
        if tuple(values.shape) not in ((1,), (n_pairs,)):
            raise ProbeError(
                f"strength has shape {tuple(values.shape)} for {n_pairs} pairs; give a number, or one for each pair"
            )
    if not bool(torch.isfinite(values).all()):
        raise ProbeError("strength is NaN or infinite; give a number, such as 0.5, or one for each pair")
    return None if bool((values == 1).all()) else values.cpu()
