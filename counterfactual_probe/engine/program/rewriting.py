"""A program being rewritten, operation by operation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from .independence import rows_of_samples
from .operators import Convolution, Edit
from .program import Op, Program, Ref, Size, leaves, map_leaves, outputs

Shape = tuple[Any, ...]
T = TypeVar("T")

# With a value of one row in place of as many as samples, these give the same.
_BROADCASTING = ("add", "sub", "mul", "div")


class Rewriting:
    """A program's values and uses, and rewrites that keep the image."""

    def __init__(self, program: Program) -> None:
        self.ops, self.shapes, self.constants = list(program.ops), dict(program.shapes), dict(program.constants)
        self.image, self.inputs, self.draws = program.image, program.inputs, program.draws
        self._made_once: dict[Hashable, Any] = {}

    def program(self) -> Program:
        used = {number for op in self.ops for number in op.reads} | {self.image}
        kept = {number: value for number, value in self.constants.items() if number in used}
        return Program(self.ops, self.inputs, self.image, self.shapes, kept, draws=self.draws)

    def makers(self) -> dict[int, Op]:
        """The operation that makes each value."""
        return {number: op for op in self.ops for number in op.outs if number is not None}

    def uses(self) -> Counter[int]:
        return Counter([number for op in self.ops for number in op.reads] + [self.image])

    def constant(self, item: Any) -> Tensor | None:
        """The value of an argument, if it is a constant."""
        return self.constants.get(item.number) if isinstance(item, Ref) else None

    def kernel(self, op: Op) -> Tensor | None:
        """The kernel of an ungrouped convolution, if it and the bias are constant."""
        if not isinstance(op.run, Convolution) or op.run.groups != 1:
            return None
        known = op.args[2] is None or self.constant(op.args[2]) is not None
        return self.constant(op.args[1]) if known else None

    def number(self, shape: Shape) -> int:
        """The number of a new value of this shape."""
        number = len(self.shapes)
        self.shapes[number] = shape
        return number

    def add_constant(self, value: Tensor) -> Ref:
        number = self.number(tuple(value.shape))
        self.constants[number] = value
        return Ref(number)

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What ``make`` returns, made once: calls of one layer share their kernels, whatever these become."""
        if key not in self._made_once:
            self._made_once[key] = make()
        return self._made_once[key]  # type: ignore[no-any-return]

    def computed(self, run: Any, refs: list[Ref], new: list[Op]) -> Ref:
        """A constant if all of ``refs`` are; otherwise a value that one operation more, put into ``new``, makes."""
        values = [self.constant(ref) for ref in refs]
        if all(value is not None for value in values):
            return self.add_constant(run(*values))
        number = self.number(max((self.shapes[ref.number] for ref in refs), key=lambda s: isinstance(s[0], Size)))
        new.append(Op(run, tuple(refs), {}, (number,)))
        return Ref(number)

    def each(self, rewrite: Callable[[Op], list[Op]]) -> None:
        """Replace every operation by what ``rewrite`` returns."""
        self.ops = [new for op in self.ops for new in rewrite(op)]

    def replace(self, replaced: Mapping[int, Op], gone: set[int]) -> None:
        """Replace the operations that make some values, and remove those that make ``gone``."""
        kept = (op for op in self.ops if not gone.intersection(op.outs))
        self.ops = [replaced.get(op.outs[0], op) if op.outs[0] is not None else op for op in kept]

    def rename(self, renamed: Mapping[int, int]) -> None:
        self.ops = [op.reading(renamed) if renamed.keys() & set(op.reads) else op for op in self.ops]
        self.image = renamed.get(self.image, self.image)

    def drop_unused(self) -> None:
        needed, kept = {self.image}, []
        for op in reversed(self.ops):
            if needed.intersection(op.outs):
                needed.update(op.reads)
                kept.append(op)
        self.ops = kept[::-1]

    def fold_constants(self) -> None:
        """Compute constants once, such as kernels divided by their spectral norm."""
        kept = []
        for op in self.ops:
            sizes = any(isinstance(leaf, Size) for leaf in leaves((op.args, dict(op.kwargs))))
            if sizes or isinstance(op.run, Edit) or any(number not in self.constants for number in op.reads):
                kept.append(op)
            else:
                self.constants.update(outputs(op, op(self.constants, 0)))
        self.ops = kept

    def fold_alike(self) -> None:
        """Compute once what is the same for every sample, such as the time of a step and what networks make of it.

        Proved so, it is a constant of one row: what a time adds to a convolution's channels becomes a part of the
        bias. Readers that need all rows get a view of it.
        """
        rows, _ = rows_of_samples(self.program())
        known, kept = dict(self.constants), []
        for op in self.ops:
            made = [rows.get(number) for number in op.outs if number is not None]
            alike = bool(made) and all(of_value is not None and of_value.alike for of_value in made)
            if alike and not isinstance(op.run, Edit) and known.keys() >= set(op.reads):
                known.update(outputs(op, op(known, 1)))
            else:
                kept.append(op)
        folded = sorted(known.keys() - self.constants.keys())
        short = {number: self.add_constant(known[number][:1].clone()) for number in folded}
        kept = [self._reading_one_row(op, short) for op in kept]
        read = {number for op in kept for number in op.reads} | {self.image}
        views = [
            Op(torch.ops.aten.expand.default, (short[number], list(self.shapes[number])), {}, (number,))
            for number in folded
            if number in read
        ]
        self.ops = [*views, *kept]

    def _reading_one_row(self, op: Op, short: Mapping[int, Ref]) -> Op:
        """The operation reading one row where that is enough: another argument has all rows, in as many dimensions."""
        if op.kind not in _BROADCASTING:
            return op
        made = self.shapes[op.out]
        whole = [self.shapes[number] for number in op.reads if number not in short and number not in self.constants]
        if not any(len(shape) == len(made) and shape[0] == made[0] for shape in whole):
            return op

        def one_row(leaf: Any) -> Any:
            fits = isinstance(leaf, Ref) and leaf.number in short and len(self.shapes[leaf.number]) == len(made)
            return short[leaf.number] if fits else leaf

        return replace(op, args=map_leaves(op.args, one_row))

    def lay_out_kernels(self) -> None:
        """Kernels in channels-last layout, in which CPU convolutions are fastest, and which outputs inherit."""
        for op in self.ops:
            for number in op.reads[1:]:
                value = self.constants.get(number)
                if value is not None and kernel_layout(value) is torch.channels_last:
                    self.constants[number] = value.contiguous(memory_format=torch.channels_last)


def kernel_layout(value: Tensor) -> torch.memory_format:
    """The layout in which kernels are kept: what is made in it need not be copied later."""
    return torch.channels_last if value.dim() == 4 and value.device.type == "cpu" else torch.contiguous_format
