"""Unit sets: which channels of which layers an intervention sets (the papers' E)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..base.errors import ProbeError, nearest, visible
from .adapter import GeneratorAdapter
from .layers import LayerInfo, listed

T = TypeVar("T")
UnitsLike: TypeAlias = "Iterable[int] | Mapping[str, Iterable[int]] | Iterable[Any] | None"

_FEW = 3  # channels that stand for a set which has no name
_MASK_CURE = "for a boolean mask, give mask.nonzero()[:, 0]"


@dataclass(frozen=True, eq=False)
class UnitSet(Mapping[str, tuple[int, ...]]):
    """Channels per layer, as an immutable mapping ``{layer: (channel, …)}``.

    >>> UnitSet({"main.8": (3, 17)})
    UnitSet(main.8: 3, 17)
    >>> UnitSet({"main.8": (3, 17)}, name="eyes and mouth") == {"main.8": (3, 17)}
    True

    Attributes:
        channels: by layer.
        name: what figures and tables call the set, such as "module 1"; two sets of the same channels are equal
            whatever their names.
    """

    channels: Mapping[str, tuple[int, ...]]
    name: str = ""

    def __getitem__(self, layer: str) -> tuple[int, ...]:
        return self.channels[layer]

    def __iter__(self) -> Iterator[str]:
        return iter(self.channels)

    def __len__(self) -> int:
        return len(self.channels)

    def __hash__(self) -> int:
        return hash(tuple(sorted(self.channels.items())))

    def __repr__(self) -> str:
        return f"UnitSet({visible(self.label())}{f'; {self.name!r}' if self.name else ''})"

    @property
    def size(self) -> int:
        """Number of channels, over all layers."""
        return sum(map(len, self.channels.values()))

    def named(self, name: str) -> UnitSet:
        """The same channels under another name."""
        return UnitSet(self.channels, name)

    def title(self, number: int) -> str:
        """What figures and tables call the set of this number: its name, a few channels, or how many there are."""
        if self.name:
            return self.name
        if self.size > _FEW:
            return f"set {number} ({self.size} channels)"
        # Files do not keep the order of layers.
        return UnitSet({layer: self[layer] for layer in sorted(self) if self[layer] or not self.size}).label()

    def label(self, most: int = 4) -> str:
        """The channels in short, for errors."""
        parts = []
        for layer, channels in self.channels.items():
            shown = ", ".join(map(str, channels[:most])) if channels else "no channel"
            more = f", … ({len(channels)} channels)" if len(channels) > most else ""
            parts.append(f"{layer}: {shown}{more}")
        return "; ".join(parts)


def titles(units: Sequence[UnitSet]) -> list[str]:
    """What figures and tables call each of the sets: channels of one layer, each alone, by their numbers.

    >>> titles([UnitSet({"main.8": (3,)}), UnitSet({"main.8": (17,)})])
    ['3', '17']
    """
    alone = all(item.size == 1 and not item.name for item in units)
    if alone and len({layer for item in units for layer in item}) == 1:
        return [str(channel) for item in units for channels in item.values() for channel in channels]
    return [item.title(number) for number, item in enumerate(units, 1)]


def parse_layers(generator: GeneratorAdapter, layer: str | Sequence[str]) -> tuple[LayerInfo, ...]:
    """One layer's name or several, checked against the generator."""
    if not isinstance(generator, GeneratorAdapter):
        raise ProbeError(
            f"the generator is a {type(generator).__name__}; make it one with cp.wrap(module, sample_latents)"
        )
    names = listed(layer)
    if not names:
        raise ProbeError("no layer was named; name at least one of generator.layers")
    sites = [generator.site(name) for name in names]
    for site in sites:
        site.warn_if_guessed()
    layers = [site.info for site in sites]
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
    units: UnitsLike, layers: Sequence[LayerInfo], generator: GeneratorAdapter | None = None
) -> list[UnitSet]:
    """Unit sets from every accepted form, checked against the layers they may name.

    ``None`` is each channel of each layer, alone. A flat list of channels is one set and needs a
    single layer; a mapping is one set; anything else is a list of sets. Only a mapping may name a
    layer with no channels: the intervention that changes nothing. With the generator given, a
    mapping may name a layer by any of its names.
    """
    if units is None:
        return [UnitSet({info.name: (channel,)}) for info in layers for channel in range(info.channels)]
    if isinstance(units, (str, bytes)):
        raise ProbeError(f"units are the string {units!r}; give channel numbers, or {{layer: channels}}")
    if isinstance(units, Mapping):
        return [_mapping(units, layers, generator)]
    items = _items(units)
    if not items:
        raise ProbeError("units hold no channel; give at least one channel number, or None for each channel alone")
    if all(_is_number(item) for item in items):
        return [_flat(items, layers)]
    if any(_is_number(item) for item in items):
        raise ProbeError(
            "units mix channel numbers and sets of channels; give either one flat list, such as [3, 17], or a "
            "list of sets, such as [[3], [17]]"
        )
    sets = []
    for item in items:
        if isinstance(item, Mapping):
            sets.append(_mapping(item, layers, generator))
        else:
            sets.append(_flat(_items(item), layers))
    return sets


def _mapping(units: Mapping[Any, Any], layers: Sequence[LayerInfo], generator: GeneratorAdapter | None) -> UnitSet:
    by_name = {info.name: info for info in layers}
    if not units:
        raise ProbeError("units are an empty mapping; name a layer and its channels, such as {'main.8': [3, 17]}")
    checked = {}
    named = units if generator is None else by_layer(units, generator, "units")
    for name, channels in named.items():
        if name not in by_name:
            raise ProbeError(
                f"units name layer {name!r}, which is not among the layers given ({', '.join(by_name)}); "
                f"nearest: {nearest(str(name), by_name)}"
            )
        checked[name] = _checked_channels(_items(channels), by_name[name])
    return UnitSet(checked, units.name if isinstance(units, UnitSet) else "")


def _flat(channels: list[Any], layers: Sequence[LayerInfo]) -> UnitSet:
    if len(layers) > 1:
        raise ProbeError(
            f"a flat list of channels is ambiguous over {len(layers)} layers; name them, such as "
            f"{{{layers[0].name!r}: {channels[:3]}}}"
        )
    if not channels:
        raise ProbeError(
            f"a unit set holds no channel; give at least one channel number, or {{{layers[0].name!r}: []}} to "
            "run the base unchanged on purpose"
        )
    return UnitSet({layers[0].name: _checked_channels(channels, layers[0])})


def _checked_channels(channels: list[Any], layer: LayerInfo) -> tuple[int, ...]:
    numbers = []
    for channel in channels:
        if not _is_number(channel):
            raise ProbeError(
                f"{channel!r} is given as a channel of layer {layer.name!r}; channels are integers, 0 to "
                f"{layer.channels - 1} ({_MASK_CURE})"
            )
        if not 0 <= int(channel) < layer.channels:
            raise ProbeError(
                f"channel {int(channel)} asked of layer {layer.name!r}, which has {layer.channels}; "
                f"give 0 to {layer.channels - 1}"
            )
        numbers.append(int(channel))
    if len(set(numbers)) < len(numbers):
        twice = next(number for number in numbers if numbers.count(number) > 1)
        raise ProbeError(f"channel {twice} of layer {layer.name!r} is given twice in one unit set; give it once")
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


def union(sets: Iterable[UnitSet], layers: Iterable[str] = ()) -> UnitSet:
    """All channels of the sets, each once; ``layers`` are kept even without a channel."""
    channels: dict[str, dict[int, None]] = {layer: {} for layer in layers}
    for item in sets:
        for layer, numbers in item.items():
            channels.setdefault(layer, {}).update(dict.fromkeys(numbers))
    return UnitSet({layer: tuple(numbers) for layer, numbers in channels.items()})
