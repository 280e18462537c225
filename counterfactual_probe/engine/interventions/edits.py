"""Edits of one batch: what a swap does to the activation of a layer, wherever the batch is run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from ...base.memory import on_device
from ...generator.units.axis import Coordinates
from ...generator.units.features import Features


class SwapEdit:
    """Puts values of the source into units of a batch; entries of one row stand together.

    Every unit becomes base + weight · (source − base): the source's value, to the bit, where the weight is 1 or there
    is none.

    Attributes:
        at: the units of the layer; None for its channels.
        before, after: (samples, units, …) the units' values in the clean runs of base and source.
        weight: (samples, 1, …) for views (samples, channels, …): strength times mask.
        rows, units: (entries,) where they go in the batch.
        row_numbers: ``rows`` as a list, which Python reads without waiting for a device.
        samples: (entries,) which base and source sample a row belongs to.
        per_row: units in every row that has any, if that is one number.
    """

    def __init__(
        self,
        at: Coordinates | None,
        values: tuple[Tensor, Tensor],
        weight: Tensor | None,
        samples: Sequence[int],
        places: tuple[list[int], list[int]],
    ) -> None:
        self.at, (self.before, self.after), self.weight = at, values, weight
        rows, units = places
        device = self.after.device
        self.row_numbers = rows
        self.rows, self.units = on_device(rows, device), on_device(units, device)
        self.samples = on_device([samples[row] for row in rows], device)
        sizes = set(Counter(rows).values())
        self.per_row = sizes.pop() if len(sizes) == 1 else None

    @property
    def is_sparse(self) -> bool:
        """Whether :meth:`change` is all that an activation changes by."""
        return self.at is None and self.per_row is not None

    def __call__(self, view: Tensor) -> None:
        placed = view if self.at is None else self.at.units_first(view)
        new = self.after[self.samples, self.units]
        if self.weight is not None:
            new = torch.lerp(placed[self.rows, self.units], new, self._of_entries(self.weight, view))
        placed[self.rows, self.units] = new

    def _of_entries(self, weight: Tensor, view: Tensor) -> Tensor:
        """(entries, …) weights of the units that are set."""
        if self.at is None:
            return weight[self.samples, 0]
        return self.at.units_first(weight.expand(len(weight), *view.shape[1:]))[self.samples, self.units]

    def change(self, m: int) -> Tensor:
        """(rows set, m, …) what the swap adds to the units of each row, if every row sets m."""
        samples, units = self.samples[::m, None], self.units.view(-1, m)
        change = self.after[samples, units] - self.before[samples, units]
        return change if self.weight is None else change * self.weight[self.samples[::m]]


class FeatureEdit(SwapEdit):
    """The same for features: an activation gains what its code does when features of it are set.

    Attributes:
        weight: (samples, 1, …) strengths, for codes.
        mask: (samples, 1, …) for views.
    """

    def __init__(
        self,
        at: Features,
        values: tuple[Tensor, Tensor],
        weights: tuple[Tensor | None, Tensor | None],
        samples: Sequence[int],
        places: tuple[list[int], list[int]],
    ) -> None:
        strength, self.mask = weights
        super().__init__(None, values, strength, samples, places)
        self.features = at
        self._samples = samples

    def __call__(self, view: Tensor) -> None:
        numbers = list(dict.fromkeys(self.row_numbers))  # entries of one row stand together
        place_of = {row: place for place, row in enumerate(numbers)}
        device = self.rows.device
        rows, place = on_device(numbers, device), on_device([place_of[row] for row in self.row_numbers], device)
        current = view[rows]
        before = self.features.codes(current)
        after = before.clone()
        new = self.after[self.samples, self.units]
        if self.weight is not None:
            new = torch.lerp(after[place, self.units], new, self.weight[self.samples, 0])
        after[place, self.units] = new
        moved(self.features, view, rows, (before, after), self._masks(numbers))

    @property
    def is_sparse(self) -> bool:
        # A masked change of a whole activation is no multiple of a feature's direction.
        masked = self.mask is not None and self.features.of_whole
        return super().is_sparse and self.features.directions is not None and not masked

    def _masks(self, rows: Sequence[int]) -> Tensor | None:
        if self.mask is None:
            return None
        return self.mask[on_device([self._samples[row] for row in rows], self.mask.device)]

    def change(self, m: int) -> Tensor:
        change = super().change(m)
        return change if self.mask is None else change * self.mask[self.samples[::m]]


def moved(
    features: Features, view: Tensor, rows: Tensor | list[int], codes: tuple[Tensor, Tensor], mask: Tensor | None
) -> None:
    """Add to some rows of a view what its codes changed by; what the codes do not explain stays."""
    before, after = codes
    change = (features.decode(after) - features.decode(before)).to(view)
    view[rows] += change if mask is None else change * mask
