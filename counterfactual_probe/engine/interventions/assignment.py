"""Assignments: units take given values, or functions of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ...generator.units import UnitSet
from ...generator.units.axis import CHANNEL, Coordinates
from ...generator.units.extent import Extent
from ...generator.units.features import Features
from ..runs import BoundIntervention, CleanRun, Edit, Edits
from .edits import moved
from .intervention import layers_of

# (units, layer, sample, current values (units, …) in this run) -> values of the set's units of the layer
Assign = Callable[[UnitSet, str, int, Tensor], Tensor]


class Assignment:
    """Units take assigned values (S003 Def. 1) or transformed ones (Def. 3), or come nearer to them.

    ``assign(units, layer, sample, current)`` gives the values of the set's units of a layer,
    shape (units, …), for one base sample; ``current`` are their values in this run.
    """

    def __init__(
        self,
        sets: Sequence[UnitSet],
        assign: Assign,
        coordinates: Mapping[str, Coordinates] | None = None,
        extent: Extent | None = None,
    ) -> None:
        self.sets, self._assign = sets, assign
        self.coordinates = {name: at for name, at in (coordinates or {}).items() if at.kind != CHANNEL}
        self.extent = extent or Extent()
        self.taken_from: Mapping[str, str] = {}  # it has no source

    @property
    def layers(self) -> list[str]:
        return layers_of(self.sets)

    def bind(self, base: CleanRun, source: CleanRun | None) -> BoundIntervention:
        return _BoundAssignment(self, self._assign, base.numbers)


class _BoundAssignment:
    def __init__(self, assignment: Assignment, assign: Assign, numbers: Sequence[int]) -> None:
        self._sets, self._assign, self._numbers = assignment.sets, assign, numbers
        self._coordinates, self._extent = assignment.coordinates, assignment.extent

    def changes(self, sample: int) -> list[bool]:
        return [units.size > 0 for units in self._sets]

    def edits(self, samples: Sequence[int], sets: Sequence[int | None]) -> Edits:
        edits: Edits = {}
        for row, chosen in enumerate(sets):
            if chosen is None:
                continue
            units: Mapping[str, tuple[int, ...]] = self._sets[chosen]
            for layer, numbers in units.items():
                if numbers:
                    edit = self._edit(self._sets[chosen], layer, row, self._numbers[samples[row]])
                    edits.setdefault(layer, []).append(edit)
        return edits

    def _edit(self, units: UnitSet, layer: str, row: int, number: int) -> Edit:
        at, numbers = self._coordinates.get(layer), list(units[layer])

        def edit(view: Tensor) -> None:
            if isinstance(at, Features):
                self._edit_features(at, view, row, (units, layer), number)
                return
            placed = view if at is None else at.units_first(view)
            current = placed[row, numbers]
            new = self._assign(units, layer, number, current).to(current)
            weight = self._extent.weight(layer, [number], view)
            if weight is not None:
                whole = weight.expand(1, *view.shape[1:])
                new = torch.lerp(current, new, (whole if at is None else at.units_first(whole))[0, numbers])
            placed[row, numbers] = new

        return edit

    def _edit_features(self, at: Features, view: Tensor, row: int, of: tuple[UnitSet, str], number: int) -> None:
        units, layer = of
        numbers = list(units[layer])
        before = at.codes(view[row : row + 1])
        after = before.clone()
        current = before[0, numbers]
        new = self._assign(units, layer, number, current).to(current)
        strength = self._extent.strength([number], before)
        after[0, numbers] = new if strength is None else torch.lerp(current, new, strength[0].expand_as(current))
        moved(at, view, [row], (before, after), self._extent.mask(layer, [number], view))
