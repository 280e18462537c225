"""Unit sets from every form in which users name them, checked against the layers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

from ...base.errors import ProbeError, nearest
from ..adapter import GeneratorAdapter
from ..layers import LayerInfo, listed
from .axis import Coordinates, channels_of
from .unit_set import UnitSet

T = TypeVar("T")
UnitsLike: TypeAlias = "Iterable[int] | Mapping[str, Iterable[int]] | Iterable[Any] | None"

_MASK_CURE = "for a boolean mask, give mask.nonzero()[:, 0]"


def parse_layers(generator: GeneratorAdapter, layer: str | Sequence[str]) -> tuple[LayerInfo, ...]:
    """One layer's name or several, checked against the generator."""
    if not isinstance(generator, GeneratorAdapter):
        raise ProbeError(
            f"the generator is a {type(generator).__name__}; make it one with cp.wrap(module, sample_latents)"
        )
    names = listed(layer)
    if not names:
        raise ProbeError("no layer was named; name at least one of generator.layers")
    layers = []
    for name in names:
        info, (site, *_) = generator.span(name)
        site.warn_if_guessed()
        layers.append(info)
    if len({info.name for info in layers}) < len(layers):
        raise ProbeError(f"a layer is named twice in {names}; name each once")
    return tuple(layers)


def by_layer(given: Mapping[Any, T], generator: GeneratorAdapter, what: str) -> dict[str, T]:
    """The same mapping, with aliases replaced by the layers' canonical names."""
    canonical: dict[str, T] = {}
    for name, item in given.items():
        layer = generator.layer(name).name
        if layer in canonical:
            raise ProbeError(f"{what} name layer {layer!r} twice, in {[*given]}; name it once")
        canonical[layer] = item
    return canonical


def parse_units(
    units: UnitsLike, layers: Sequence[LayerInfo | Coordinates], generator: GeneratorAdapter | None = None
) -> list[UnitSet]:
    """Unit sets from every accepted form, checked against the layers they may name.

    ``None`` is each unit of each layer, alone. A flat list of numbers is one set and needs a
    single layer; a mapping is one set; anything else is a list of sets. Only a mapping may name a
    layer with no units: the intervention that changes nothing. With the generator given, a
    mapping may name a layer by any of its names. The units of a layer are its channels, unless coordinates say what
    they are.
    """
    places = [channels_of(item) if isinstance(item, LayerInfo) else item for item in layers]
    kind = places[0].kind
    if units is None:
        return [UnitSet({place.name: (unit,)}, kind=kind) for place in places for unit in range(place.count)]
    if isinstance(units, (str, bytes)):
        raise ProbeError(f"units are the string {units!r}; give {kind} numbers, or {{layer: {kind}s}}")
    if isinstance(units, Mapping):
        return [_mapping(units, places, generator)]
    items = _items(units)
    if not items:
        raise ProbeError(f"units hold no {kind}; give at least one {kind} number, or None for each {kind} alone")
    if all(_is_number(item) for item in items):
        return [_flat(items, places)]
    if any(_is_number(item) for item in items):
        raise ProbeError(
            f"units mix {kind} numbers and sets of {kind}s; give either one flat list, such as [3, 17], or a "
            "list of sets, such as [[3], [17]]"
        )
    sets = []
    for item in items:
        if isinstance(item, Mapping):
            sets.append(_mapping(item, places, generator))
        else:
            sets.append(_flat(_items(item), places))
    return sets


def _mapping(units: Mapping[Any, Any], places: Sequence[Coordinates], generator: GeneratorAdapter | None) -> UnitSet:
    by_name, kind = {place.name: place for place in places}, places[0].kind
    if isinstance(units, UnitSet) and units.kind != kind:
        how = "features=..." if "feature" in (units.kind, kind) else f"axis={units.kind!r}"
        raise ProbeError(f"the unit set holds {units.kind}s and units are {kind}s here; give {how} where it was made")
    if not units:
        raise ProbeError(f"units are an empty mapping; name a layer and its {kind}s, such as {{'main.8': [3, 17]}}")
    checked = {}
    named = units if generator is None else by_layer(units, generator, "units")
    for name, numbers in named.items():
        if name not in by_name:
            raise ProbeError(
                f"units name layer {name!r}, which is not among the layers given ({', '.join(by_name)}); "
                f"nearest: {nearest(str(name), by_name)}"
            )
        checked[name] = _checked_numbers(_items(numbers), by_name[name])
    return UnitSet(checked, units.name if isinstance(units, UnitSet) else "", kind)


def _flat(numbers: list[Any], places: Sequence[Coordinates]) -> UnitSet:
    kind = places[0].kind
    if len(places) > 1:
        raise ProbeError(
            f"a flat list of {kind}s is ambiguous over {len(places)} layers; name them, such as "
            f"{{{places[0].name!r}: {numbers[:3]}}}"
        )
    if not numbers:
        raise ProbeError(
            f"a unit set holds no {kind}; give at least one {kind} number, or {{{places[0].name!r}: []}} to "
            "run the base unchanged on purpose"
        )
    return UnitSet({places[0].name: _checked_numbers(numbers, places[0])}, kind=kind)


def _checked_numbers(given: list[Any], place: Coordinates) -> tuple[int, ...]:
    numbers, kind = [], place.kind
    for unit in given:
        if not _is_number(unit):
            raise ProbeError(
                f"{unit!r} is given as a {kind} of layer {place.name!r}; {kind}s are integers, 0 to "
                f"{place.count - 1} ({_MASK_CURE})"
            )
        if not 0 <= int(unit) < place.count:
            raise ProbeError(
                f"{kind} {int(unit)} asked of layer {place.name!r}, which has {place.count}; "
                f"give 0 to {place.count - 1}"
            )
        numbers.append(int(unit))
    if len(set(numbers)) < len(numbers):
        twice = next(number for number in numbers if numbers.count(number) > 1)
        raise ProbeError(f"{kind} {twice} of layer {place.name!r} is given twice in one unit set; give it once")
    return tuple(numbers)


def _items(values: Any) -> list[Any]:
    if isinstance(values, Tensor) and (values.layout is not torch.strided or values.is_meta):
        raise ProbeError(f"units are a tensor of layout {values.layout} on {values.device}; {_MASK_CURE}")
    if isinstance(values, (Tensor, np.ndarray)):
        return list(values.tolist()) if values.ndim else [values.item()]
    if _is_number(values):
        raise ProbeError(f"units are the number {values}; give a list, such as [{values}]")
    try:
        return list(values)
    except Exception:  # a TypeError, or what an object of the user's raises
        raise ProbeError(
            f"units hold a {type(values).__name__}; give channel numbers, {{layer: channels}} or a list of these "
            f"({_MASK_CURE})"
        ) from None


def _is_number(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.dim() == 0 and not value.is_meta and not value.is_floating_point() and not value.dtype.is_complex
    return isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.bool_))
