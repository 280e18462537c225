"""Steps that carry low-precision differences: rounding is relative to what an intervention changes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..program.operators import Affine, Convolution
from ..program.polyphase import PolyphaseConvolution
from ..program.program import Op, map_leaves
from ..program.vocabulary import is_linear
from .batch import Batch
from .steps import DIFFERENCE, Routing, only_changed


def route_difference(routing: Routing, op: Op) -> bool:
    """Steps that carry differences; False if the operation is not known to be linear."""
    route = {"relu": _relu, "cat": _cat, "add": _sum, "sub": _sum}.get(op.kind, _linear)
    return op.single and route(routing, op)


def _linear(routing: Routing, op: Op) -> bool:
    """Apply the operation to the difference."""
    x, rest = only_changed(routing, op), _factors(routing, op)
    if x is None or rest is None:
        return False
    routing.as_difference(x)
    if isinstance(op.run, Affine) and rest[0] is None:
        routing.make(DIFFERENCE, op.out, lambda batch: batch.difference[x], ((DIFFERENCE, x),), shares=True)
        return True
    readers = [map_leaves(item, lambda leaf: routing.reader(leaf, low_precision=True)) for item in rest]
    run, kwargs = op.run, op.kwargs

    def carried(batch: Batch) -> Tensor:
        others = [map_leaves(item, lambda reader: reader(batch)) for item in readers]
        return run(batch.difference[x], *others, **kwargs)  # type: ignore[no-any-return]

    fresh = isinstance(run, (Convolution, PolyphaseConvolution, Affine))
    routing.make(DIFFERENCE, op.out, carried, ((DIFFERENCE, x),), shares=not fresh)
    return True


def _factors(routing: Routing, op: Op) -> tuple[Any, ...] | None:
    """The arguments after the first with which the operation is linear: without shifts; None if it is not."""
    rest = op.args[1:]
    fixed = isinstance(op.run, (Convolution, PolyphaseConvolution)) and rest[0].number in routing.constants
    if fixed or isinstance(op.run, Affine):
        return (rest[0], None)
    linear = (is_linear(op.run, op.kind) and "rounding_mode" not in op.kwargs) or (
        op.kind == "constant_pad_nd" and rest[1:] in ((), (0,), (0.0,))
    )
    return rest if linear else None


def _relu(routing: Routing, op: Op) -> bool:
    """relu(a + d) − relu(a) = max(d + min(a, 0), −max(a, 0)), in two passes."""
    x, dtype = op.reads[0], routing.difference_dtype
    routing.need(x)
    routing.as_difference(x)
    rows = routing.rows(x)

    def bounds(batch: Batch) -> tuple[Tensor, Tensor]:
        # Rounded like differences: where a bound decides, the difference is at least as large.
        below = batch.clean.derive(x, "below", lambda a: a.clamp_max(0).to(dtype))
        above = batch.clean.derive(x, "above", lambda a: a.clamp_min(0).neg().to(dtype))
        return batch.rows_of(below, rows), batch.rows_of(above, rows)

    def bent(batch: Batch) -> Tensor:
        below, above = bounds(batch)
        moved = batch.difference[x] + below
        return torch.maximum(moved, above, out=moved)

    def in_place(batch: Batch) -> Tensor:
        below, above = bounds(batch)
        moved = batch.difference[x].add_(below)
        return torch.maximum(moved, above, out=moved)

    routing.make(DIFFERENCE, op.out, bent, ((DIFFERENCE, x),), in_place)
    return True


def _cat(routing: Routing, op: Op) -> bool:
    """Parts that do not change are concatenated as zeros."""
    parts, dtype = op.args[0], routing.difference_dtype
    changed = [part.number for part in parts if routing.changes(part)]
    for number in changed:
        routing.as_difference(number)

    def joined(batch: Batch) -> Tensor:
        device = batch.difference[changed[0]].device
        values = [
            batch.difference[part.number]
            if part.number in routing.changed
            else torch.zeros(routing.program.size(part.number, batch.size), dtype=dtype, device=device)
            for part in parts
        ]
        return op.run(values, *op.args[1:], **op.kwargs)  # type: ignore[no-any-return]

    routing.make(DIFFERENCE, op.out, joined, tuple((DIFFERENCE, number) for number in changed))
    return True


def _sum(routing: Routing, op: Op) -> bool:
    """Terms that do not change drop out."""
    changed = [item.number for item in op.args if routing.changes(item)]
    shapes = routing.program.shapes
    if op.kwargs or len(op.args) != 2 or any(shapes[number] != shapes[op.out] for number in changed):
        return False
    for number in changed:
        routing.as_difference(number)
    first, sign = routing.changes(op.args[0]), -1 if op.kind == "sub" else 1

    def summed(batch: Batch) -> Tensor:
        if len(changed) == 2:
            return torch.add(batch.difference[changed[0]], batch.difference[changed[1]], alpha=sign)
        return batch.difference[changed[0]] if first else sign * batch.difference[changed[0]]

    keys = tuple((DIFFERENCE, number) for number in changed)
    routing.make(DIFFERENCE, op.out, summed, keys, shares=len(changed) == 1)
    return True
