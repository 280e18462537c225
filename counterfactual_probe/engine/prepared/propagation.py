"""How an intervention travels through a simplified program: the steps that a batch of hybrids takes.

The units set are few, so the first convolution after them adds their share to what the clean run computed: channels
by their kernels, linear features by those of their directions. From there on values are whole. With low-precision
differences nothing is whole: linear steps carry the difference, others f(clean + difference) − f(clean), and clean
values keep their precision.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...generator.layers import LayerInfo
from ..forms.packed import PackedConvolution, Packing
from ..program.independence import Rows
from ..program.operators import Affine, Edit
from ..program.polyphase import PolyphaseConvolution
from ..program.program import Op, Program, map_leaves, outputs
from ..program.simplify import Simplified
from .batch import Batch
from .difference import route_difference
from .sparse import route_sparse
from .steps import FULL, SPARSE, EditPath, Key, Routing, Sparse, Step, only_changed


def edit_path(
    simplified: Simplified,
    rows: Mapping[int, Rows],
    layers: frozenset[str],
    *,
    sparse: Sparse | None,
    difference_dtype: torch.dtype | None,
    packed: dict[Hashable, Tensor] | None = None,
) -> EditPath:
    """The path of a batch in which these layers are set, ``sparse`` by a swap of a few units in each row.

    ``rows`` says how the rows of values belong to samples, and ``difference_dtype`` is the type in which differences
    travel; None lets values travel whole. ``packed`` are the kernels that are packed so far, to which more are added;
    None computes every convolution by torch's own call.
    """
    program = _without_edits_of_others(simplified.program, layers)
    routing = Routing(program, rows, sparse, difference_dtype)
    packing = None if packed is None else Packing(program, packed)
    for op in program.ops:
        if isinstance(op.run, Edit):
            _edit(routing, op, op.run.info)
        elif any(routing.has(number, FULL) for number in op.outs if number is not None):
            continue  # the ending of a convolution, computed with it
        elif routing.changed.intersection(op.outs):
            _route(routing, op, packing)
    routing.as_full(program.image)
    return routing.path()


def _without_edits_of_others(program: Program, layers: frozenset[str]) -> Program:
    """The program without the edits of layers that this path does not set."""
    renamed: dict[int, int] = {}
    ops = []
    for op in program.ops:
        if isinstance(op.run, Edit) and op.run.layer not in layers:
            renamed[op.out] = renamed.get(op.reads[0], op.reads[0])
        else:
            ops.append(op.reading(renamed))
    return replace(program, ops=ops, image=renamed.get(program.image, program.image))


def _route(routing: Routing, op: Op, packing: Packing | None) -> None:
    x = only_changed(routing, op)
    if x is not None and routing.has(x, SPARSE) and route_sparse(routing, op, x):
        return
    if routing.difference_dtype is not None and route_difference(routing, op):
        return
    convolution = None if packing is None else packing.of(op)
    if packing is not None and convolution is not None:
        _packed(routing, op, convolution, packing.endings.get(op.out, op).out)
        return
    _whole(routing, op)


def _packed(routing: Routing, op: Op, convolution: PackedConvolution, out: int) -> None:
    """A convolution with its ending: it makes ``out``, which the ending would make."""
    x, run = op.reads[0], op.run
    routing.as_full(x)

    def compute(batch: Batch) -> Tensor:
        value = batch.full[x]
        if isinstance(run, PolyphaseConvolution):
            return run.interleaved(convolution(run.padded(value)), value)
        return convolution(value)

    routing.make(FULL, out, compute, ((FULL, x),))


def _edit(routing: Routing, op: Op, info: LayerInfo) -> None:
    before, after, layer = op.reads[0], op.out, info.name
    if routing.sparse is not None and layer == routing.sparse.layer:
        if routing.sparse.directions is not None:
            routing.directions[after] = routing.sparse.directions
        routing.make(SPARSE, after, lambda batch: batch.change, ())
        return
    reached = before in routing.changed
    if reached:
        routing.as_full(before)
    else:
        routing.need(before)
    rows = routing.rows(before)

    def set_channels(batch: Batch) -> Tensor:
        activation = batch.full[before].clone() if reached else batch.copied_rows(batch.clean.values[before], rows)
        view = info.channels_first(activation)
        for edit in batch.edits.get(layer, ()):
            edit(view)
        return activation

    routing.make(FULL, after, set_channels, ((FULL, before),) if reached else ())


def _whole(routing: Routing, op: Op) -> None:
    """The unchanged operation, on whole values."""
    changed = [number for number in dict.fromkeys(op.reads) if number in routing.changed]
    for number in changed:
        routing.as_full(number)
    keys: tuple[Key, ...] = tuple((FULL, number) for number in changed)
    readers = [map_leaves(item, routing.reader) for item in op.args]
    named = map_leaves(dict(op.kwargs), routing.reader)
    run = op.run

    def arguments(batch: Batch) -> list[Any]:
        return [map_leaves(item, lambda reader: reader(batch)) for item in readers]

    def compute(batch: Batch) -> Any:
        return run(*arguments(batch), **map_leaves(named, lambda reader: reader(batch)))

    if not op.single:
        _several(routing, op, compute, keys)
        return

    overwrite = _in_place(routing, op, arguments) if op.args and routing.changes(op.args[0]) else None
    if overwrite is not None and op.reads[0] != changed[0]:
        overwrite = None
    routing.make(FULL, op.out, compute, keys, overwrite, shares=not op.fresh)


def _several(routing: Routing, op: Op, compute: Callable[[Batch], Any], keys: tuple[Key, ...]) -> None:
    """An operation that returns several tensors."""

    def run(batch: Batch) -> None:
        batch.full.update(outputs(op, compute(batch)))

    makes = tuple((FULL, number) for number in op.outs if number is not None)
    routing.make_several(Step(run, keys, makes, shares=True))


def _in_place(routing: Routing, op: Op, arguments: Callable[[Batch], list[Any]]) -> Callable[[Batch], Tensor] | None:
    """The in-place form of the operation, if it has one."""

    def scaled(batch: Batch) -> Tensor:
        x, scale, shift = arguments(batch)
        if scale is None:
            return x if shift is None else x.add_(shift)  # type: ignore[no-any-return]
        if shift is None:
            return x.mul_(scale)  # type: ignore[no-any-return]
        return torch.addcmul(shift, x, scale, out=x)

    def added(batch: Batch) -> Tensor:
        x, other = arguments(batch)
        in_place = torch.result_type(x, other) == x.dtype
        return x.add_(other) if in_place else x + other  # type: ignore[no-any-return]

    if isinstance(op.run, Affine):
        return scaled
    alike = len({routing.program.shapes[number] for number in (*op.reads, op.out)}) == 1
    if op.kind == "add" and not op.kwargs and len(op.reads) == 2 and alike:
        return added
    overload = str(getattr(op.run, "_overloadname", None))
    written = getattr(getattr(torch.ops.aten, op.kind + "_", None), overload, None)
    if op.elementwise and written is not None:
        return lambda batch: written(*arguments(batch), **op.kwargs)
    return None
