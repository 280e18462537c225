"""The steps of a path as it is built: which forms of a value exist, and how one is made from another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ..program.independence import ONE_EACH, Rows
from ..program.operators import Edit
from ..program.program import Op, Program, Ref, Size
from ..program.recording import NotRecordable
from .batch import Batch, new

Key: TypeAlias = tuple[str, int]  # a form, and the number of a value
FULL, DIFFERENCE, SPARSE = "full", "difference", "sparse"


@dataclass
class Step:
    """One computation on a batch: makes one form of one value."""

    run: Callable[[Batch], None]
    reads: tuple[Key, ...]
    makes: tuple[Key, ...]
    shares: bool = False  # the result may share memory with what is read
    overwrite: Callable[[Batch], None] | None = None  # the same in the memory of the first form read
    frees: tuple[Key, ...] = ()


@dataclass
class EditPath:
    """The steps from the edited layers to the image, and the numbers of the clean values that they read."""

    steps: list[Step]
    needs: frozenset[int]
    image: int

    def __call__(self, batch: Batch) -> Tensor:
        forms = {FULL: batch.full, DIFFERENCE: batch.difference, SPARSE: batch.sparse}
        for step in self.steps:
            step.run(batch)
            for form, number in step.frees:
                forms[form].pop(number, None)
        return batch.full[self.image]


@dataclass(frozen=True)
class Sparse:
    """The layer whose units a swap sets, few in each row; ``directions`` of features, None for channels."""

    layer: str
    directions: Tensor | None = None


class Routing:
    """A path through a program on which some layers are set, ``sparse`` by a swap of few units in each row.

    ``rows`` says how the rows of values belong to samples, and ``difference_dtype`` is the type in which differences
    travel; None lets values travel whole.

    Attributes:
        directions: of sparse values whose units are features, by number: (features, channels) what a unit of each adds
            to its position, or (features, channels, H, W) to the whole value.
    """

    def __init__(
        self,
        program: Program,
        rows: Mapping[int, Rows],
        sparse: Sparse | None,
        difference_dtype: torch.dtype | None,
    ) -> None:
        self.program, self.constants = program, program.constants
        self._rows = rows
        self.changed = _computed_anew(program, rows)
        self.sparse, self.difference_dtype = sparse, difference_dtype
        self.directions: dict[int, Tensor] = {}
        self._steps: list[Step] = []
        self._needs: set[int] = set()
        self._forms: dict[int, set[str]] = {}

    def path(self) -> EditPath:
        """The steps so far; values are freed after their last use, and overwritten where that is safe."""
        image = (FULL, self.program.image)
        last = {key: position for position, step in enumerate(self._steps) for key in step.reads}
        shared = {key for step in self._steps if step.shares for key in (*step.reads, *step.makes)}
        for position, step in enumerate(self._steps):
            step.frees = tuple(key for key in dict.fromkeys(step.reads) if last[key] == position and key != image)
            if step.overwrite is not None and step.reads[0] in step.frees and step.reads[0] not in shared:
                step.run = step.overwrite
        return EditPath(self._steps, frozenset(self._needs), self.program.image)

    def make(
        self,
        form: str,
        number: int,
        function: Callable[[Batch], Tensor],
        reads: tuple[Key, ...],
        overwrite: Callable[[Batch], Tensor] | None = None,
        *,
        shares: bool = False,
    ) -> None:
        """Add a step that makes this form of a value."""

        def stored(compute: Callable[[Batch], Tensor]) -> Callable[[Batch], None]:
            def run(batch: Batch) -> None:
                getattr(batch, form)[number] = compute(batch)

            return run

        step = Step(stored(function), reads, ((form, number),), shares, stored(overwrite) if overwrite else None)
        self.make_several(step)

    def make_several(self, step: Step) -> None:
        """Add a step; its results may share memory."""
        self._steps.append(step)
        for form, number in step.makes:
            self._forms.setdefault(number, set()).add(form)

    def need(self, number: int) -> int:
        """Note that steps read a value of the clean run; its rows must belong to samples."""
        if not (number in self._rows or self.program.per_sample(number)):
            raise NotRecordable("a value that is not one for each sample is read as a difference")
        self._needs.add(number)
        return number

    def rows(self, number: int) -> Rows:
        """How the rows of a value that is read belong to samples."""
        return self._rows.get(number, ONE_EACH)

    def has(self, number: int, form: str) -> bool:
        return form in self._forms.get(number, ())

    def changes(self, item: Any) -> bool:
        """Whether an argument is a value that the edits reach."""
        return isinstance(item, Ref) and item.number in self.changed

    def as_full(self, number: int) -> None:
        """Make the whole value available."""
        if self.has(number, FULL):
            return
        clean, rows = self.need(number), self.rows(number)

        def whole(batch: Batch) -> Tensor:
            return batch.rows_of(batch.clean.values[clean], rows) + batch.difference[number]

        directions = self.directions.get(number)

        def placed(batch: Batch) -> Tensor:
            result = batch.copied_rows(batch.clean.values[clean], rows)
            if directions is None:
                result[batch.rows[:, None], batch.units] += batch.sparse[number]
            else:
                result[batch.rows] += in_channels(batch, number, directions)
            return result

        if self.has(number, DIFFERENCE):
            self.make(FULL, number, whole, ((DIFFERENCE, number),))
        else:
            self.make(FULL, number, placed, ((SPARSE, number),))

    def as_difference(self, number: int) -> None:
        """Make the change of the value available."""
        if self.has(number, DIFFERENCE):
            return
        dtype, sizes, rows = self.difference_dtype, self.program.shapes[number][1:], self.rows(number)

        def compared(batch: Batch) -> Tensor:
            return (batch.full[number] - batch.rows_of(batch.clean.values[number], rows)).to(dtype)

        directions = self.directions.get(number)

        def placed(batch: Batch) -> Tensor:
            change = batch.sparse[number] if directions is None else in_channels(batch, number, directions)
            change = change.to(dtype)
            result = new((batch.size, *sizes), change.dtype, change.device).zero_()
            if directions is None:
                result[batch.rows[:, None], batch.units] = change
            else:
                result[batch.rows] = change
            return result

        if self.has(number, FULL):
            self.need(number)
            self.make(DIFFERENCE, number, compared, ((FULL, number),))
        else:
            self.make(DIFFERENCE, number, placed, ((SPARSE, number),))

    def reader(self, item: Any, *, low_precision: bool = False) -> Callable[[Batch], Any]:
        """How a step reads an argument: one that no edit reaches, or a whole changed one."""
        if isinstance(item, Size):
            return lambda batch: item.at(batch.size)
        if not isinstance(item, Ref):
            return lambda _: item
        number, dtype = item.number, self.difference_dtype
        if number in self.changed:
            return lambda batch: batch.full[number]
        if number in self.constants:
            value = self.constants[number]
            if low_precision and value.is_floating_point():
                value = value.to(dtype)
            return lambda _: value
        self.need(number)
        rows = self.rows(number)
        if low_precision:
            return lambda batch: batch.rows_of(
                batch.clean.derive(number, "low precision", lambda value: value.to(dtype)), rows
            )
        return lambda batch: batch.rows_of(batch.clean.values[number], rows)


def in_channels(batch: Batch, number: int, directions: Tensor) -> Tensor:
    """(rows set, channels, …) the change of a sparse value whose units are features."""
    if directions.dim() > 2:  # of whole activations
        return torch.einsum("rm,rm...->r...", batch.sparse[number], directions[batch.units])
    return torch.einsum("rm...,rmc->rc...", batch.sparse[number], directions[batch.units])


def _computed_anew(program: Program, rows: Mapping[int, Rows]) -> frozenset[int]:
    """Values downstream of the edits, and values whose rows belong to no samples, which each batch computes itself.

    An example of the latter is the first state of an LSTM, (layers, samples, features).
    """
    anew = set(program.reached(op.out for op in program.ops if isinstance(op.run, Edit)))
    for op in reversed(program.ops):
        if anew.intersection(op.outs):
            anew.update(
                number
                for number in op.reads
                if not (number in program.constants or number in rows or program.per_sample(number))
            )
    return frozenset(anew)


def only_changed(routing: Routing, op: Op) -> int | None:
    """The operation's first argument, if it alone is downstream of the edits, and is read once."""
    changed = [number for number in op.reads if number in routing.changed]
    return op.args[0].number if len(changed) == 1 and routing.changes(op.args[0]) else None
