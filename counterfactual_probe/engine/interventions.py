"""Interventions: the values that unit sets take, for a block of base samples.

A bound intervention says which unit sets change anything for a sample at all. One that changes
nothing is not run: its image is the original, exactly (the consistency axiom of counterfactuals),
and not the original plus the rounding of another batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from ..base.errors import ProbeError
from ..generator.units import UnitSet
from .runs import BoundIntervention, CleanRun, Edit, Edits


class Intervention(Protocol):
    """What is set where. Binds to the clean runs of one block of samples at a time."""

    sets: Sequence[UnitSet]

    @property
    def layers(self) -> list[str]: ...

    def bind(self, base: CleanRun, source: CleanRun | None) -> BoundIntervention: ...


def layers_of(sets: Sequence[UnitSet]) -> list[str]:
    """The layers in which any of the sets has channels."""
    return list(dict.fromkeys(layer for units in sets for layer, channels in units.items() if channels))


def path_of(units: UnitSet) -> frozenset[str]:
    """The layers in which a unit set has channels: where its hybrids depart from the clean run."""
    return frozenset([layer for layer, channels in units.channels.items() if channels])


class Swap:
    """Channels take the values of the clean run of the source (S003 §3.2; conventions 2)."""

    def __init__(self, sets: Sequence[UnitSet]) -> None:
        self.sets = sets

    @property
    def layers(self) -> list[str]:
        return layers_of(self.sets)

    def bind(self, base: CleanRun, source: CleanRun | None) -> BoundIntervention:
        if source is None:
            raise ProbeError("a swap needs a source; give the latents whose values are put in")
        return _BoundSwap(self.sets, base, source)


class _BoundSwap:
    def __init__(self, sets: Sequence[UnitSet], base: CleanRun, source: CleanRun) -> None:
        self._sets = sets
        self._values = source.activations
        # NaN != NaN, so a NaN is run, and reported.
        self._differs = {
            layer: (source.activations[layer] != base.activations[layer]).flatten(2).any(2).cpu()
            if source.activations[layer].dim() > 2
            else (source.activations[layer] != base.activations[layer]).cpu()
            for layer in layers_of(sets)
        }

    def changes(self, sample: int) -> list[bool]:
        differs = {layer: values[sample].tolist() for layer, values in self._differs.items()}
        return [
            any(differs[layer][channel] for layer, channels in units.channels.items() for channel in channels)
            for units in self._sets
        ]

    def edits(self, samples: Sequence[int], sets: Sequence[int | None]) -> Edits:
        places: dict[str, tuple[list[int], list[int]]] = {}
        for row, chosen in enumerate(sets):
            if chosen is None:
                continue
            for layer, channels in self._sets[chosen].channels.items():
                rows, columns = places.setdefault(layer, ([], []))
                rows.extend([row] * len(channels))
                columns.extend(channels)
        return {
            layer: [SwapEdit(self._values[layer], samples, rows, columns)]
            for layer, (rows, columns) in places.items()
            if rows
        }


class SwapEdit:
    """Puts source values into channels of a batch; entries of one row stand together.

    Attributes:
        rows, channels: (entries,) where they go in the batch.
        samples: (entries,) which base and source sample a row belongs to.
        values: (samples, channels, …) the source's clean activation.
        per_row: channels in every row that has any, if that is one number.
    """

    def __init__(self, values: Tensor, samples: Sequence[int], rows: list[int], channels: list[int]) -> None:
        device = values.device
        self.values = values
        self.rows, self.channels = torch.tensor(rows, device=device), torch.tensor(channels, device=device)
        self.samples = torch.tensor([samples[row] for row in rows], device=device)
        sizes = set(Counter(rows).values())
        self.per_row = sizes.pop() if len(sizes) == 1 else None

    def __call__(self, view: Tensor) -> None:
        view[self.rows, self.channels] = self.values[self.samples, self.channels]


class Assignment:
    """Channels take assigned values (S003 Def. 1) or transformed ones (Def. 3).

    ``assign(units, layer, sample, current)`` gives the values of the set's channels of a layer,
    shape (channels, …), for one base sample; ``current`` are their values in this run.
    """

    def __init__(self, sets: Sequence[UnitSet], assign: Callable[[UnitSet, str, int, Tensor], Tensor]) -> None:
        self.sets = sets
        self._assign = assign

    @property
    def layers(self) -> list[str]:
        return layers_of(self.sets)

    def bind(self, base: CleanRun, source: CleanRun | None) -> BoundIntervention:
        return _BoundAssignment(self.sets, self._assign, base.numbers)


class _BoundAssignment:
    def __init__(
        self,
        sets: Sequence[UnitSet],
        assign: Callable[[UnitSet, str, int, Tensor], Tensor],
        numbers: Sequence[int],
    ) -> None:
        self._sets, self._assign, self._numbers = sets, assign, numbers

    def changes(self, sample: int) -> list[bool]:
        return [units.size > 0 for units in self._sets]

    def edits(self, samples: Sequence[int], sets: Sequence[int | None]) -> Edits:
        edits: Edits = {}
        for row, chosen in enumerate(sets):
            if chosen is None:
                continue
            units: Mapping[str, tuple[int, ...]] = self._sets[chosen]
            for layer, channels in units.items():
                if channels:
                    edit = self._edit(self._sets[chosen], layer, row, self._numbers[samples[row]])
                    edits.setdefault(layer, []).append(edit)
        return edits

    def _edit(self, units: UnitSet, layer: str, row: int, number: int) -> Edit:
        channels = list(units[layer])

        def edit(view: Tensor) -> None:
            current = view[row, channels]
            view[row, channels] = self._assign(units, layer, number, current).to(current)

        return edit
