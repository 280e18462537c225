"""Swaps: units take the values of the clean run of the source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from ...base.errors import ProbeError
from ...generator.units import UnitSet
from ...generator.units.axis import CHANNEL, Coordinates
from ...generator.units.extent import Extent
from ...generator.units.features import Features
from ..runs import BoundIntervention, CleanRun, Edits
from .edits import FeatureEdit, SwapEdit
from .intervention import layers_of


class Swap:
    """Units take the values of the clean run of the source (S003 §3.2; conventions 2), or come nearer to them.

    Args:
        sets: the unit sets.
        coordinates: how the units of each layer are told apart; by default they are its channels.
        extent: where and how far; by default everywhere, and wholly.
        taken_from: layers of the source whose values others take; by default each takes its own.
    """

    def __init__(
        self,
        sets: Sequence[UnitSet],
        coordinates: Mapping[str, Coordinates] | None = None,
        extent: Extent | None = None,
        taken_from: Mapping[str, str] | None = None,
    ) -> None:
        self.sets = sets
        self.coordinates = {
            name: at for name, at in (coordinates or {}).items() if at.kind != CHANNEL and name in layers_of(sets)
        }
        self.extent = extent or Extent()
        self.taken_from: Mapping[str, str] = taken_from or {}

    @property
    def layers(self) -> list[str]:
        return layers_of(self.sets)

    def of(self, sets: Sequence[UnitSet]) -> Swap:
        """The same of other unit sets."""
        return Swap(sets, self.coordinates, self.extent, self.taken_from)

    def bind(self, base: CleanRun, source: CleanRun | None) -> BoundIntervention:
        if source is None:
            raise ProbeError("a swap needs a source; give the latents whose values are put in")
        return _BoundSwap(self, base, source)


class _BoundSwap:
    def __init__(self, swap: Swap, base: CleanRun, source: CleanRun) -> None:
        self._sets = swap.sets
        self._layers = {
            layer: _BoundLayer(
                swap.coordinates.get(layer),
                base,
                source.activations[swap.taken_from.get(layer, layer)],
                swap.extent,
                layer,
            )
            for layer in swap.layers
        }

    def changes(self, sample: int) -> list[bool]:
        differs = {layer: bound.differs[sample].tolist() for layer, bound in self._layers.items()}
        return [
            any(differs[layer][unit] for layer, numbers in units.channels.items() for unit in numbers)
            for units in self._sets
        ]

    def edits(self, samples: Sequence[int], sets: Sequence[int | None]) -> Edits:
        places: dict[str, tuple[list[int], list[int]]] = {}
        for row, chosen in enumerate(sets):
            if chosen is None:
                continue
            for layer, numbers in self._sets[chosen].channels.items():
                rows, units = places.setdefault(layer, ([], []))
                rows.extend([row] * len(numbers))
                units.extend(numbers)
        return {layer: [self._layers[layer].edit(samples, place)] for layer, place in places.items() if place[0]}


class _BoundLayer:
    """The units of one layer in the clean runs of base and source.

    Attributes:
        differs: (samples, units) whether a swap changes a unit at all.
    """

    def __init__(self, at: Coordinates | None, base: CleanRun, source: Tensor, extent: Extent, layer: str) -> None:
        self._at, clean = at, base.activations[layer]
        self._values = (clean, source) if at is None else (at.codes(clean), at.codes(source))
        before, after = self._values
        self._strength, self._mask = extent.strength(base.numbers, after), extent.mask(layer, base.numbers, clean)
        self._weight = extent.weight(layer, base.numbers, clean)
        differs = after != before  # NaN != NaN, so a NaN is run, and reported
        if isinstance(at, Features):
            differs = differs if self._strength is None else differs & (self._strength != 0)
        elif self._weight is not None:
            weight = self._weight.expand_as(clean)
            differs = differs & ((weight if at is None else at.units_first(weight)) != 0)
        self.differs = (differs.flatten(2).any(2) if differs.dim() > 2 else differs).cpu()

    def edit(self, samples: Sequence[int], places: tuple[list[int], list[int]]) -> SwapEdit:
        if isinstance(self._at, Features):
            return FeatureEdit(self._at, self._values, (self._strength, self._mask), samples, places)
        return SwapEdit(self._at, self._values, self._weight, samples, places)
