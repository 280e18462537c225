"""The values of one batch of runs, each in the forms computed so far.

*Full* is the value itself. *Difference* is what an intervention changed of it, in a type of lower
precision. *Sparse* is the difference in the few units that were set, channels or linear features, before it
spreads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby

import torch
from torch import Tensor

from ...base.memory import on_device
from ..interventions import SwapEdit
from ..program.independence import ONE_EACH, Rows
from ..program.polyphase import apart
from ..runs import Runs


@dataclass
class Clean:
    """Values of the clean run that a batch reads, by number, and quantities derived from them."""

    values: Mapping[int, Tensor]
    derived: dict[tuple[int, str], Tensor] = field(default_factory=dict)

    def derive(self, number: int, what: str, function: Callable[[Tensor], Tensor]) -> Tensor:
        """A function of a value, computed once."""
        value = self.derived.get((number, what))
        if value is None:
            value = self.derived[number, what] = function(self.values[number])
        return value


class Batch:
    """Rows to run, each on one sample of a clean run, and the forms of values computed so far."""

    def __init__(self, clean: Clean, runs: Runs, sparse: SwapEdit | None, device: torch.device) -> None:
        samples = runs.samples
        self.clean, self.edits = clean, runs.edits
        self.size = len(samples)
        self.full: dict[int, Tensor] = {}
        self.difference: dict[int, Tensor] = {}
        self.sparse: dict[int, Tensor] = {}
        self._samples = samples
        self._one = samples[0] if len(set(samples)) == 1 else None
        self._index = on_device(samples, device)
        if sparse is not None and sparse.per_row is not None:
            self._places(sparse, sparse.per_row)

    def _places(self, swap: SwapEdit, m: int) -> None:
        """Which rows and units the swap sets, m in each row, and by how much."""
        self.rows, self._rows_set = swap.rows[::m], swap.row_numbers[::m]  # (rows set,)
        self.units = swap.units.view(-1, m)  # (rows set, m)
        self.samples = swap.samples[::m, None]  # (rows set, 1)
        self.change = swap.change(m)  # (rows set, m, …)

    def rows_of(self, value: Tensor, rows: Rows = ONE_EACH) -> Tensor:
        """A clean value's rows for every row of the batch; a view if all are of one sample and have one row each."""
        if self._one is not None and rows.each == 1:
            return value[self._one : self._one + 1].expand(self.size, *value.shape[1:])
        # Rows of the layout that convolutions keep.
        taken = value.permute(0, 2, 3, 1) if value.dim() == 4 else value
        if rows.each == 1:
            taken = taken[self._index]
        else:
            taken = taken.reshape(rows.outer, -1, rows.inner, *taken.shape[1:])[:, self._index].flatten(0, 2)
        return taken.permute(0, 3, 1, 2) if value.dim() == 4 else taken

    def copied_rows(self, value: Tensor, rows: Rows = ONE_EACH) -> Tensor:
        """The same, as a writable copy."""
        taken = self.rows_of(value, rows)
        if self._one is None or rows.each > 1:
            return taken
        return new(tuple(taken.shape), taken.dtype, taken.device).copy_(taken)

    def chosen(self, value: Tensor) -> Tensor:
        """A clean value's channels that the swap sets: (rows set, m, …)."""
        if len(value) == 1:  # one for all samples
            return value[0][self.units]
        return value[self.samples, self.units]

    def spread(self, value: Tensor, change: Tensor) -> Tensor:
        """The clean value of every row, plus the change (rows set, …) where there is one."""
        made = result = new((self.size, *value.shape[1:]), value.dtype, value.device)
        if change.dim() == 6:  # brought into the order of pixels by the addition, not by a separate pass
            result, value = apart(result, change.shape[2]), apart(value, change.shape[2])
        done = 0
        for sample, start, stop, is_set in self._stretches:
            if is_set:
                torch.add(value[sample], change[done : done + stop - start], out=result[start:stop])
                done += stop - start
            else:
                result[start:stop] = value[sample]
        return made

    @cached_property
    def _stretches(self) -> list[tuple[int, int, int, bool]]:
        """Consecutive rows of one sample that are all set or all not: (sample, first, last + 1, set)."""
        are_set = set(self._rows_set)
        stretches = []
        start = 0
        for (sample, is_set), rows in groupby((sample, row in are_set) for row, sample in enumerate(self._samples)):
            stop = start + sum(1 for _ in rows)
            stretches.append((sample, start, stop, is_set))
            start = stop
        return stretches


def new(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Memory for a value, in the layout of :func:`laid_out`."""
    last = len(shape) == 4 and device.type == "cpu"
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty(shape, dtype=dtype, device=device, memory_format=layout)


def laid_out(value: Tensor) -> Tensor:
    """Images in channels-last layout, which CPU convolutions read fastest."""
    if value.dim() == 4 and value.device.type == "cpu":
        return value.contiguous(memory_format=torch.channels_last)
    return value
