"""Roll up loops over the samples of a batch, which a recording holds unrolled, so that any batch size can be run.

A forward may take a batch apart, ``[f(x[i]) for i in range(len(x))]``, and stack or write its results together.
Its recording has the operations of ``f`` once for each sample. Where they are the same but for the sample, one
operation stands for all: those of ``f`` on the whole batch if they work element by element, and ``EachSample``
otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from torch import Tensor

from ..operators import EachSample, arguments
from ..program import Op, Program, Ref, leaves
from ..scatters import through_writes
from ..vocabulary import CONCATENATIONS, is_pointwise


def rolled(program: Program, samples: int) -> Program:
    """A recording of so many samples with its loops rolled up, and values renumbered."""
    ops, renamed = through_writes(program.ops, program.shapes)
    unrolled = _Unrolled(ops, dict(program.shapes), samples)
    placed = [(position, op) for position, one in enumerate(ops) for op in unrolled.rolled(one)]
    renamed |= unrolled.renamed
    layers = {
        call: (_final(number, renamed), position)
        for call, (number, position) in program.layers.items()
        if number not in unrolled.inside
    }
    image = _final(program.image, renamed)
    placed = _needed(placed, {image, *(number for number, _ in layers.values())})
    positions = [position for position, _ in placed]
    layers = {
        call: (number, sum(before < position for before in positions)) for call, (number, position) in layers.items()
    }
    changed = replace(program, ops=[op for _, op in placed], image=image, shapes=unrolled.shapes, layers=layers)
    return _numbered_anew(changed)


class _Row(NamedTuple):
    """One sample of a value: ``x[i]``, or ``x[i : i + 1]`` if it does not drop the dimension."""

    whole: int
    sample: int
    drops: bool


@dataclass
class _Loop:
    """What is the same for each sample: the values of the first one, and what they are made of."""

    rows: dict[int, _Row] = field(default_factory=dict)
    shared: set[int] = field(default_factory=set)
    inner: set[int] = field(default_factory=set)


class _Unrolled:
    """The operations of a recording with loops in them.

    Attributes:
        inside: values of single samples.
        renamed: values that a batch has already, such as a stack of all its rows.
    """

    def __init__(self, ops: Sequence[Op], shapes: dict[int, Any], samples: int) -> None:
        self._ops, self.shapes, self._samples = ops, shapes, samples
        self._makers = {number: op for op in ops for number in op.outs if number is not None}
        self.inside: set[int] = set()
        self.renamed: dict[int, int] = {}

    def rolled(self, op: Op) -> list[Op]:
        """The operations to put in place of one: itself, or the whole loop if it joins the samples of one."""
        op = op.reading(self.renamed)
        joined = self._parts(op)
        if joined is None:
            return [op]
        parts, stacks = joined
        loop = self._loop(parts)
        if loop is None:
            return [op]
        body = self._body(loop)
        if self._works_on_batches(loop, body, stacks):
            return self._on_batch(loop, body, parts[0], op)
        return [self._each_sample(loop, body, parts[0], op, stacks=stacks)]

    def _parts(self, op: Op) -> tuple[list[int], bool] | None:
        """The values that are joined, one for each sample, and whether they are stacked."""
        if op.kind == "stack" or op.kind in CONCATENATIONS:
            numbers = [item.number for item in arguments(op)["tensors"]]
            alike = len({self.shapes[number] for number in numbers}) == 1
            one_each = alike and len(numbers) == len(set(numbers)) == self._samples
            return (numbers, op.kind == "stack") if one_each and arguments(op)["dim"] == 0 else None
        if op.kind not in ("select_scatter", "slice_scatter"):
            return None
        written: dict[int, int] = {}
        maker: Op | None = op
        while maker is not None and maker.kind == op.kind and len(written) < self._samples:
            sample = self._sample_of(maker)
            if sample is None:
                return None
            written.setdefault(sample, maker.reads[1])  # the latest write is met first
            maker = self._makers.get(maker.reads[0])
        if set(written) != set(range(self._samples)) or self.shapes[op.out][0] != self._samples:
            return None
        return [written[sample] for sample in range(self._samples)], op.kind == "select_scatter"

    def _sample_of(self, op: Op) -> int | None:
        """Which sample alone an operation reads or writes."""
        given = arguments(op)
        if given["dim"] != 0:
            return None
        if op.kind in ("select", "select_scatter"):
            return int(given["index"]) % self._samples
        start, end = given["start"], given["end"]
        return start if given["step"] == 1 and None not in (start, end) and end == start + 1 else None

    def _row(self, number: int) -> _Row | None:
        """Which sample a value is of a batch, if it is one."""
        maker = self._makers.get(number)
        if maker is None or maker.kind not in ("select", "slice", "unbind", "split", "chunk"):
            return None
        whole, drops = maker.reads[0], maker.kind in ("select", "unbind")
        if self.shapes[whole][0] != self._samples or arguments(maker)["dim"] != 0:
            return None
        sample = self._sample_of(maker) if maker.kind in ("select", "slice") else maker.outs.index(number)
        if sample is None or not (drops or self.shapes[number][0] == 1):
            return None
        return _Row(_final(whole, self.renamed), sample, drops)

    def _loop(self, parts: Sequence[int]) -> _Loop | None:
        """What computes the first part, if the other parts are computed alike from the other samples."""
        loops = [self._compared(parts[0], part, sample) for sample, part in enumerate(parts) if sample]
        first = loops[0]
        if first is None or not first[0].rows or any(item is None or item[0] != first[0] for item in loops):
            return None
        for item in loops:
            if item is not None:
                self.inside |= item[0].inner | item[1]
        return first[0]

    def _compared(self, first: int, other: int, sample: int) -> tuple[_Loop, set[int]] | None:
        """What computes a value of the first sample, if that of another is computed alike; and the other's values."""
        loop, pairs = _Loop(), dict[int, int]()
        waiting = [(first, other)]
        while waiting:
            one, two = waiting.pop()
            if one in pairs:
                if pairs[one] != two:
                    return None
                continue
            pairs[one] = two
            rows = self._row(one), self._row(two)
            if one == two:
                loop.shared.add(one)
            elif rows[0] is not None and rows[0].sample == 0 and rows[1] == rows[0]._replace(sample=sample):
                loop.rows[one] = rows[0]
            elif (reads := _alike(self._makers.get(one), self._makers.get(two), one, two)) is not None:
                loop.inner.add(one)
                waiting += reads
            else:
                return None
        return loop, set(pairs.values()) - loop.shared

    def _body(self, loop: _Loop) -> list[Op]:
        """The operations on samples, in order; what depends on shared values alone is shared as well."""
        body, of_samples = [], set(loop.rows)
        for op in self._ops:
            if not loop.inner.intersection(op.outs):
                continue
            if of_samples.isdisjoint(op.reads):
                loop.inner.difference_update(op.outs)
                loop.shared.update(number for number in op.outs if number is not None)
            else:
                of_samples.update(number for number in op.outs if number is not None)
                body.append(op)
        read = {number for op in body for number in op.reads}
        loop.shared.intersection_update(read)
        return body

    def _works_on_batches(self, loop: _Loop, body: Sequence[Op], stacks: bool) -> bool:
        """Whether the operations are pointwise, so that they can run on the whole batch at once."""

        def is_aligned(op: Op) -> bool:
            """Values of samples have as many dimensions as the result, which get one more at the front."""
            of_samples = [number for number in op.reads if number not in loop.shared]
            ranks = {len(self.shapes[number]) for number in (*of_samples, op.out)}
            return len(ranks) == 1 and all(len(self.shapes[number]) <= max(ranks) for number in op.reads)

        drops = {row.drops for row in loop.rows.values()}
        return drops == {stacks} and all(op.single and is_pointwise(op.kind) and is_aligned(op) for op in body)

    def _on_batch(self, loop: _Loop, body: Sequence[Op], part: int, join: Op) -> list[Op]:
        numbers = {number: row.whole for number, row in loop.rows.items()}
        if part in numbers:
            self.renamed[join.out] = numbers[part]
            return []
        result = []
        for op in body:
            number = join.out if op.out == part else len(self.shapes)
            shape = self.shapes[op.out]
            inner = shape if next(iter(loop.rows.values())).drops else shape[1:]
            self.shapes[number] = (self._samples, *inner)
            result.append(replace(op.reading(numbers | self.renamed), outs=(number,)))
            numbers[op.out] = number
        return result

    def _each_sample(self, loop: _Loop, body: Sequence[Op], part: int, join: Op, *, stacks: bool) -> Op:
        rows, shared = sorted(loop.rows), sorted(loop.shared)
        numbers = {number: place for place, number in enumerate([*rows, *shared])}
        renumbered = []
        for op in body:
            outs = tuple(None if number is None else numbers.setdefault(number, len(numbers)) for number in op.outs)
            renumbered.append(replace(op.reading(numbers), outs=outs))
        run = EachSample(tuple(renumbered), tuple(loop.rows[row].drops for row in rows), numbers[part], stacks)
        read = [*(loop.rows[row].whole for row in rows), *(_final(number, self.renamed) for number in shared)]
        return Op(run, tuple(map(Ref, read)), {}, join.outs)


def _alike(one: Op | None, two: Op | None, first: int, second: int) -> list[tuple[int, int]] | None:
    """The pairs of values that two operations read, if they are the same operation on them."""
    if one is None or two is None or one.run is not two.run or one.outs.index(first) != two.outs.index(second):
        return None
    read: list[tuple[int, int]] = []
    given = [list(leaves((list(op.args), dict(op.kwargs)))) for op in (one, two)]
    if len(given[0]) != len(given[1]):
        return None
    for left, right in zip(*given, strict=True):
        if isinstance(left, Ref) and isinstance(right, Ref):
            read.append((left.number, right.number))
        elif isinstance(left, (Ref, Tensor)) or type(left) is not type(right) or left != right:
            return None
    return read


def _final(number: int, renamed: Mapping[int, int]) -> int:
    while number in renamed:
        number = renamed[number]
    return number


def _needed(placed: Sequence[tuple[int, Op]], wanted: set[int]) -> list[tuple[int, Op]]:
    kept = []
    for position, op in reversed(placed):
        if wanted.intersection(op.outs):
            wanted.update(op.reads)
            kept.append((position, op))
    return kept[::-1]


def _numbered_anew(program: Program) -> Program:
    """Values numbered in the order of the operations, which recordings of different batches share."""
    numbers: dict[int, int] = {}
    for number in program.inputs:
        numbers[number] = len(numbers)
    ops = []
    for op in program.ops:
        for number in op.reads:
            numbers.setdefault(number, len(numbers))
        outs = tuple(None if number is None else numbers.setdefault(number, len(numbers)) for number in op.outs)
        ops.append(replace(op.reading(numbers), outs=outs))
    return Program(
        ops,
        tuple(numbers[number] for number in program.inputs),
        numbers.setdefault(program.image, len(numbers)),
        {new: program.shapes[old] for old, new in numbers.items()},
        {numbers[old]: value for old, value in program.constants.items() if old in numbers},
        {call: (numbers[number], position) for call, (number, position) in program.layers.items() if number in numbers},
    )
