"""Steps on the few swapped units, until an operation mixes channels, and how the change spreads there."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..program.operators import Affine, Convolution
from ..program.polyphase import PolyphaseConvolution, apart
from ..program.program import Op, Size, leaves
from ..program.rewrites.enlarging import transposed_as_polyphase
from .batch import Batch, new
from .steps import DIFFERENCE, FULL, SPARSE, Routing


def route_sparse(routing: Routing, op: Op, x: int) -> bool:
    """Steps on the swapped units alone; False if the operation mixes them in a way not known here."""
    if x in routing.directions:
        if isinstance(op.run, Affine):
            return _scale_directions(routing, op, x)
    elif op.elementwise and not any(isinstance(leaf, Size) for leaf in leaves((op.args, dict(op.kwargs)))):
        _bend(routing, op, x)
        return True
    elif isinstance(op.run, Affine):
        _scale(routing, op, x)
        return True
    spread = _spread_by(routing, op)
    if spread is None:
        return False
    out, key = op.out, ((SPARSE, x),)
    if routing.difference_dtype is None:
        routing.need(out)
        routing.make(FULL, out, lambda batch: batch.spread(batch.clean.values[out], spread(batch)), key)
        return True
    dtype, sizes = routing.difference_dtype, routing.program.shapes[out][1:]

    def placed(batch: Batch) -> Tensor:
        change = spread(batch)
        result = new((batch.size, *sizes), dtype, change.device).zero_()
        place = result if change.dim() == 4 else apart(result, change.shape[2])
        place[batch.rows] = change.to(dtype)
        return result

    routing.make(DIFFERENCE, out, placed, key)
    return True


def _bend(routing: Routing, op: Op, x: int) -> None:
    """f(clean + change) − f(clean)."""
    routing.need(x)

    def bent(batch: Batch) -> Tensor:
        clean = batch.chosen(batch.clean.values[x])
        after: Tensor = op.run(clean + batch.sparse[x], *op.args[1:], **op.kwargs)
        before: Tensor = op.run(clean, *op.args[1:], **op.kwargs)
        return after - before

    routing.make(SPARSE, op.out, bent, ((SPARSE, x),))


def _scale(routing: Routing, op: Op, x: int) -> None:
    scale, key = op.args[1], ((SPARSE, x),)
    if scale is None:
        routing.make(SPARSE, op.out, lambda batch: batch.sparse[x], key, shares=True)
        return
    fixed = routing.constants.get(scale.number)
    if fixed is None:
        routing.need(scale.number)

    def scaled(batch: Batch) -> Tensor:
        factors = batch.clean.values[scale.number] if fixed is None else fixed
        return batch.sparse[x] * batch.chosen(factors)

    routing.make(SPARSE, op.out, scaled, key)


def _scale_directions(routing: Routing, op: Op, x: int) -> bool:
    """Scales of channels that are the same for all samples scale what a feature adds to each."""
    scale = op.args[1]
    fixed = None if scale is None else routing.constants.get(scale.number)
    directions = routing.directions[x]
    if scale is not None and (fixed is None or fixed.numel() != directions.shape[1]):
        return False
    routing.directions[op.out] = (
        directions if fixed is None else directions * fixed.reshape(-1, *[1] * (directions.dim() - 2))
    )
    routing.make(SPARSE, op.out, lambda batch: batch.sparse[x], ((SPARSE, x),), shares=True)
    return True


def _spread_by(routing: Routing, op: Op) -> Callable[[Batch], Tensor] | None:
    """How a convolution propagates the change of a few channels; each row uses the kernels of its channels."""
    run, x = op.run, op.reads[0]
    if not isinstance(run, (Convolution, PolyphaseConvolution)) or (isinstance(run, Convolution) and run.groups != 1):
        return None
    weight = routing.constants.get(op.args[1].number)
    if weight is None:
        return None
    directions = routing.directions.get(x)
    if directions is not None and directions.dim() > 2:
        changed = run(directions, weight, None)  # by a unit of each feature
        return lambda batch: torch.einsum("rm,rm...->r...", batch.sparse[x], changed[batch.units])
    if isinstance(run, PolyphaseConvolution):
        return _by_polyphase(run, weight, x, directions)
    shapes, convolution = routing.program.shapes, run
    if (polyphase := transposed_as_polyphase(convolution, weight, shapes[x], shapes[op.out])) is not None:
        return _by_polyphase(*polyphase, x, directions)
    by_input = _of_units(weight if convolution.transposed else weight.transpose(0, 1), directions)
    return lambda batch: convolution.difference(batch.sparse[x], by_input[batch.units])


def _by_polyphase(
    run: PolyphaseConvolution, weight: Tensor, x: int, directions: Tensor | None
) -> Callable[[Batch], Tensor]:
    offsets = _of_units(run.every_offset(weight), directions)
    return lambda batch: run.difference(batch.sparse[x], offsets[batch.units])


def _of_units(by_channel: Tensor, directions: Tensor | None) -> Tensor:
    """Kernels (channels, …) as those of the units: sums over channels for features."""
    return by_channel if directions is None else torch.tensordot(directions, by_channel, 1)
