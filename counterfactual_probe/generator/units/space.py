"""The units of several layers: how they are asked for, checked, and written into a result."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from ...base.errors import ProbeError, one_of, whole
from ..examination import TRACED
from ..latents import take
from ..layers.info import LayerInfo
from .axis import AXES, CHANNEL, FEATURE, HEAD, TOKEN, Coordinates, channels_of, tokens_of
from .features import Features, require_basis
from .heads import heads_of
from .parsing import UnitsLike, by_layer, parse_layers, parse_units
from .unit_set import UnitSet

if TYPE_CHECKING:
    from ..adapter import GeneratorAdapter

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Space:
    """The coordinates of some layers, all of one kind.

    Attributes:
        coordinates: by layer.
    """

    generator: GeneratorAdapter
    kind: str
    coordinates: Mapping[str, Coordinates]

    @property
    def layers(self) -> tuple[LayerInfo, ...]:
        return tuple(item.layer for item in self.coordinates.values())

    def parse(self, units: UnitsLike) -> list[UnitSet]:
        """Unit sets from every accepted form, checked (see :func:`parse_units`)."""
        return parse_units(units, list(self.coordinates.values()), self.generator)

    @cached_property
    def calls(self) -> dict[str, list[str]]:
        """The single calls that each layer stands for: itself, or those of a range such as ``"mid_block#3-7"``."""
        calls = {name: [site.info.name for site in self.generator.span(name)[1]] for name in self.coordinates}
        halves = {call: self.coordinates[name].layer.half for name, several in calls.items() for call in several}
        for name, several in calls.items():
            for call in several:
                if halves[call] != self.coordinates[name].layer.half:
                    raise ProbeError(
                        f"layer {name!r} and another name different halves of {call!r}; name the whole layer, or run "
                        "the halves one after the other"
                    )
        return calls

    def in_run(self, sets: Sequence[UnitSet]) -> tuple[list[UnitSet], dict[str, Coordinates]]:
        """What is run for unit sets, and where it is: the units of a range of calls are set at each of them."""
        return [self._spread(units) for units in sets], self.by_call(self.coordinates)

    def taken_from(self, source_call: int | None) -> dict[str, str]:
        """The layer of the source whose values each call takes, if it is not the same call: this one, from 1."""
        if source_call is None:
            return {}
        number = whole(source_call, "source_call", 1)
        taken: dict[str, str] = {}
        for name in self.coordinates:
            info, sites = self.generator.span(name)
            runs = len(self.generator.calls(sites[0].address.name))
            if runs == 1:
                raise ProbeError(f"source_call is {number} and layer {name!r} runs once in a forward; leave it out")
            if number > runs:
                raise ProbeError(f"source_call is {number} and layer {name!r} runs {runs} times; give 1 to {runs}")
            address = replace(sites[0].address, call=number)
            other = self.generator.layer(f"{address.name}{address.suffix(call=True)}")
            if (other.channels, other.size, other.axes) != (info.channels, info.size, info.axes):
                raise ProbeError(
                    f"layer {other.name!r} has {other.channels} channels of {other.size} and {name!r} "
                    f"{info.channels} of {info.size}; take the values of a call that agrees"
                )
            taken |= {site.info.name: other.name for site in sites}
        return taken

    def _spread(self, units: UnitSet) -> UnitSet:
        spread: dict[str, tuple[int, ...]] = {}
        for name, numbers in units.channels.items():
            for call in self.calls[name]:
                spread[call] = (*spread.get(call, ()), *(unit for unit in numbers if unit not in spread.get(call, ())))
        return UnitSet(spread, units.name, units.kind)

    def by_call(self, values: Mapping[str, T]) -> dict[str, T]:
        """The same for each of the single calls."""
        return {call: value for name, value in values.items() for call in self.calls.get(name, [name])}

    def provenance(self) -> dict[str, Any]:
        """What a result records of its units."""
        about: dict[str, Any] = {"axis": self.kind}
        if self.kind == HEAD:
            about["heads"] = {name: item.count for name, item in self.coordinates.items()}
        if self.kind == FEATURE:
            about["features"] = {
                name: _described(item.basis) for name, item in self.coordinates.items() if isinstance(item, Features)
            }
        return about

    def bases(self) -> dict[str, Any]:
        """Digests of the numbers that features are made of, by layer, to compare runs; nothing for other units."""
        features = {name: item for name, item in self.coordinates.items() if isinstance(item, Features)}
        return {"basis": {name: item.digest() for name, item in features.items()}} if features else {}

    def codes(self) -> dict[str, Tensor]:
        """What features give for the generator's example, by layer: of code as well, which has no digest."""
        return {name: item.shown for name, item in self.coordinates.items() if isinstance(item, Features)}


def unit_space(
    generator: GeneratorAdapter,
    layer: str | Sequence[str],
    axis: str = CHANNEL,
    *,
    heads: int | None = None,
    features: Any = None,
) -> Space:
    """The units of one layer or several: channels, tokens, heads or, with ``features``, features."""
    layers = parse_layers(generator, layer)
    one_of(axis, "axis", AXES)
    if heads is not None and axis != HEAD:
        raise ProbeError(f"heads={heads!r} is given with axis={axis!r}; give axis='head', or leave heads out")
    if features is not None:
        if axis != CHANNEL:
            raise ProbeError(
                f"features are given with axis={axis!r}, and stand in the place of channels; leave axis out"
            )
        return Space(generator, FEATURE, _features(generator, layers, features))
    if axis == TOKEN:
        return Space(generator, axis, {info.name: tokens_of(info) for info in layers})
    if axis == HEAD:
        return Space(generator, axis, {info.name: heads_of(generator, info, heads) for info in layers})
    return Space(generator, axis, {info.name: channels_of(info) for info in layers})


def _features(generator: GeneratorAdapter, layers: Sequence[LayerInfo], given: Any) -> dict[str, Coordinates]:
    bases = by_layer(given, generator, "features") if isinstance(given, Mapping) else {layers[0].name: given}
    names = [info.name for info in layers]
    if list(bases) != names and sorted(bases) != sorted(names):
        raise ProbeError(f"features are of {', '.join(bases)} and layers are {', '.join(names)}; give {{layer: basis}}")
    with generator.unchanged():
        for info in layers:
            require_basis(bases[info.name], info, generator.weights_hash())
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def action(view: Tensor) -> None:
            seen[name] = view.detach().clone()

        return action

    few = range(TRACED if generator.batchable else 1)
    with generator.session():
        first = {generator.span(name)[1][0].info.name: keep(name) for name in names}
        generator.forward(take(generator.example, slice(len(few))), first, noise=few)
        return {info.name: Features(info, bases[info.name], seen[info.name]) for info in layers}


def _described(basis: Any) -> Any:
    """A basis in a result's provenance: what it says of itself, or the name of its class."""
    about = getattr(basis, "provenance", None)
    return dict(about) if isinstance(about, Mapping) else {"basis": type(basis).__name__}


def digest(values: Tensor) -> str:
    """SHA-256 of numbers, and of their shape."""
    plain = values.detach().to("cpu", torch.float64).contiguous()
    return hashlib.sha256(f"{tuple(plain.shape)}".encode() + plain.numpy().tobytes()).hexdigest()
