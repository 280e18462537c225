"""Literal twins of swaps of any units: a hook that sets them one number at a time, in a forward of one sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from support import twins
from support.toys import Toy


@dataclass(frozen=True)
class Asked:
    """A swap: of which units, where and how far; one mask (*positions) and one number for each pair."""

    kind: str
    heads: int = 1
    masks: Sequence[Tensor] | None = None
    strengths: Sequence[float] | None = None
    basis: Any = None


def hybrids(
    toy: Toy, layer: str, z1: Any, z2: Any, sets: Sequence[Sequence[int]], asked: Asked, pairs: int | None = None
) -> Tensor:
    """(sets, n, …): base + strength · mask · (source − base), for one unit and one position after the other.

    Of the first ``pairs``, or of all.
    """
    module, donors, rows = toy.plain(), [], []
    for pair in range(twins.count(z1) if pairs is None else pairs):
        donor: dict[str, Tensor] = {}
        twins.forward(module, twins.one(z2, pair), {layer: twins.record(donor, layer)})
        donors.append(donor[layer])
    for units in sets:
        row = []
        for pair, donated in enumerate(donors):
            action = set_units(donated, units, asked, pair, toy)
            row.append(twins.image_of(toy, module, twins.one(z1, pair), {layer: action}))
        rows.append(torch.stack(row))
    return torch.stack(rows)


def set_units(source: Tensor, units: Sequence[int], asked: Asked, pair: int, toy: Toy) -> twins.Action:
    def action(base: Tensor) -> Tensor:
        if asked.kind == "feature":
            return _features(base, source, units, asked, pair)
        new = base.clone()
        values, others = _by_channel(new, toy), _by_channel(source, toy)
        channels, positions = values.shape
        for channel in range(channels):
            for position in range(positions):
                if _unit(asked, channel, position, channels) in units:
                    weight = _weight(asked, pair, position)
                    before = values[channel, position].clone()
                    values[channel, position] = before + weight * (others[channel, position] - before)
        return new

    return action


def _by_channel(activation: Tensor, toy: Toy) -> Tensor:
    """(channels, positions) of one sample, sharing its memory."""
    from support.unit_models import OF_TOKENS

    one = activation[0]
    if toy.name in OF_TOKENS and one.dim() == 2:
        return one.T
    return one.view(len(one), -1)


def _unit(asked: Asked, channel: int, position: int, channels: int) -> int:
    return {"channel": channel, "token": position, "head": channel * asked.heads // channels}[asked.kind]


def _weight(asked: Asked, pair: int, position: int) -> float:
    mask = 1.0 if asked.masks is None else float(asked.masks[pair].reshape(-1)[position])
    return mask * (1.0 if asked.strengths is None else float(asked.strengths[pair]))


def _features(base: Tensor, source: Tensor, units: Sequence[int], asked: Asked, pair: int) -> Tensor:
    before, other = asked.basis.encode(base.clone()), asked.basis.encode(source.clone())
    after = before.clone()
    strength = 1.0 if asked.strengths is None else float(asked.strengths[pair])
    for unit in units:
        place = (slice(None), unit) if asked.basis.dim == 1 else (..., unit)
        after[place] = before[place] + strength * (other[place] - before[place])
    change = asked.basis.decode(after) - asked.basis.decode(before)
    if asked.masks is not None:
        mask = asked.masks[pair].to(change)
        change = change * (mask if asked.basis.dim == 1 else mask[..., None])
    return base + change
