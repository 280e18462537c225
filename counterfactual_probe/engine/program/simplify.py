"""Simplify a program for interventions on some layers: the same images with less work.

Every step keeps the function and changes the rounding alone. Parameters are read, never written: a
folded kernel is a new tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ...generator.layers import Site
from .operators import Affine, Convolution, Edit, arguments, canonical
from .program import Op, Program, Ref
from .recording import NotRecordable
from .rewrites.concatenated import concatenated_convolutions
from .rewrites.enlarging import transposed_convolutions, upsampled_convolutions
from .rewrites.modulation import ordinary_convolutions
from .rewrites.narrow import narrow_convolutions
from .rewriting import Rewriting
from .scatters import through_writes


@dataclass
class Simplified:
    """A simplified program; values that do not depend on the latents are computed.

    Attributes:
        edited: layer -> number of its activation before and after the edit, in the order of the forward.
    """

    program: Program
    edited: dict[str, tuple[int, int]]


def simplify(program: Program, sites: Sequence[Site], *, for_processors: bool = True) -> Simplified:
    """Mark the layers' activations as edited, and simplify what computes the image from them.

    ``for_processors``: give convolutions on a CPU the form in which its vector instructions do most at a time.
    """
    work = Rewriting(_with_edits(program, sites))
    work.ops, renamed = through_writes(work.ops, work.shapes)
    work.rename(renamed)
    work.each(lambda op: [_of_any_layout(op)])
    work.drop_unused()
    work.fold_constants()
    work.fold_alike()
    work.drop_unused()
    _drop_identities(work)
    work.each(lambda op: [canonical(op, work.shapes)])
    ordinary_convolutions(work)
    work.each(lambda op: _as_affine(work, op))
    _fold_into_convolutions(work)
    _compose(work)
    work.drop_unused()
    _keep_used_outputs(work)
    concatenated_convolutions(work)
    upsampled_convolutions(work)
    transposed_convolutions(work)
    work.drop_unused()
    if for_processors:
        narrow_convolutions(work)
        work.lay_out_kernels()
    edited = {op.run.layer: (op.reads[0], op.out) for op in work.ops if isinstance(op.run, Edit)}
    if missing := [site.info.name for site in sites if site.info.name not in edited]:
        raise NotRecordable(f"{missing[0]} does not reach the image")
    return Simplified(work.program(), edited)


def _with_edits(program: Program, sites: Sequence[Site]) -> Program:
    """Each layer's activation goes through an :class:`Edit` as soon as the layer hands it on."""
    for site in sites:
        if site.address not in program.layers:
            raise NotRecordable(f"{site.info.name} does not hand on a recorded tensor")
    ops, shapes, renamed = [], dict(program.shapes), dict[int, int]()
    waiting = sorted(((program.layers[site.address], site.info) for site in sites), key=lambda item: item[0][1])
    for position in range(len(program.ops) + 1):
        while waiting and waiting[0][0][1] == position:
            (number, _), info = waiting.pop(0)
            before, after = renamed.get(number, number), len(shapes)
            shapes[after] = shapes[before]
            ops.append(Op(Edit(info), (Ref(before),), {}, (after,)))
            renamed[number] = after
        if position < len(program.ops):
            ops.append(program.ops[position].reading(renamed))
    image = renamed.get(program.image, program.image)
    return Program(ops, program.inputs, image, shapes, dict(program.constants), draws=program.draws)


def _of_any_layout(op: Op) -> Op:
    """Views as reshapes: values here may have another memory layout than in the module's own forward."""
    return replace(op, run=torch.ops.aten.reshape.default) if op.run is torch.ops.aten.view.default else op


# --- affine maps of channels ---------------------------------------------------------------------------


def _as_affine(work: Rewriting, op: Op) -> list[Op]:
    """Batch norms of fixed statistics, and products and sums by channel, as :class:`Affine`."""
    if op.kind == "batch_norm":
        return [_batch_norm(work, op)]
    if op.kind not in ("mul", "add", "sub", "div") or op.kwargs or len(op.args) != 2:
        return [op]
    x, other = op.args
    if op.kind in ("mul", "add") and not _by_channel(work, other, x):
        x, other = other, x
    if not _by_channel(work, other, x):
        return [op]
    new: list[Op] = []
    if op.kind == "sub":
        other = work.computed(torch.ops.aten.neg.default, [other], new)
    elif op.kind == "div":
        other = work.computed(torch.ops.aten.reciprocal.default, [other], new)
    both = (other, None) if op.kind in ("mul", "div") else (None, other)
    return [*new, Op(Affine(), (x, *both), {}, op.outs)]


def _by_channel(work: Rewriting, item: Any, x: Any) -> bool:
    """Whether ``item`` has one value for each channel of the images ``x``."""
    if not (isinstance(item, Ref) and isinstance(x, Ref)):
        return False
    shape, images = work.shapes[item.number], work.shapes[x.number]
    return len(images) == 4 and len(shape) == 4 and shape[1:] == (images[1], 1, 1) and shape[0] in (1, images[0])


def _batch_norm(work: Rewriting, op: Op) -> Op:
    given = arguments(op)
    mean, variance = work.constant(given["running_mean"]), work.constant(given["running_var"])
    parameters = [given["weight"], given["bias"]]
    if given["training"] or mean is None or variance is None or len(work.shapes[op.out]) != 4:
        return op
    if any(item is not None and work.constant(item) is None for item in parameters):
        return op
    weight, bias = (None if item is None else work.constants[item.number].double() for item in parameters)
    scale = 1 / torch.sqrt(variance.double() + given["eps"])
    if weight is not None:
        scale = scale * weight
    shift = -mean.double() * scale
    if bias is not None:
        shift = shift + bias
    both = [work.add_constant(value.to(mean.dtype)[None, :, None, None]) for value in (scale, shift)]
    return Op(Affine(), (given["input"], *both), {}, op.outs)


def _fold_into_convolutions(work: Rewriting) -> None:
    """Fold fixed affine maps into the convolutions before them."""
    makers, uses = work.makers(), work.uses()
    folded: dict[int, Op] = {}
    gone: set[int] = set()
    scaled = _ScaledKernels(work)
    for op in work.ops:
        before = makers.get(op.reads[0]) if isinstance(op.run, Affine) else None
        if before is None or not isinstance(before.run, Convolution) or uses[before.out] != 1:
            continue
        parts = [*before.args[1:], *op.args[1:]]
        weight, bias, scale, shift = (work.constant(item) for item in parts)
        if weight is None or any(item is not None and work.constant(item) is None for item in parts):
            continue
        kernel = before.args[1] if scale is None else scaled(before, scale)
        if kernel is None:
            continue
        if scale is not None:
            bias = None if bias is None else bias * scale.flatten()
        if shift is not None:
            bias = shift.flatten() if bias is None else bias + shift.flatten()
        refs = (before.args[0], kernel, None if bias is None else work.add_constant(bias))
        folded[op.out] = Op(before.run, refs, {}, op.outs)
        gone.add(before.out)
    work.replace(folded, gone)


class _ScaledKernels:
    """Kernels times scales, one for each kernel: calls of one layer share it, and steps of a sampler take no memory.

    A layer that runs in fifty steps is scaled by the same batch norm in each, or by a scale of each step.
    """

    def __init__(self, work: Rewriting) -> None:
        self._work = work
        self._made: dict[int, tuple[Tensor, Ref]] = {}

    def __call__(self, convolution: Op, scale: Tensor) -> Ref | None:
        """The scaled kernel; None if this kernel is used with another scale."""
        number = convolution.args[1].number
        if number not in self._made:
            weight = convolution.run.scaled(self._work.constants[number], scale.flatten())  # type: ignore[attr-defined]
            self._made[number] = scale, self._work.add_constant(weight)
        known, kernel = self._made[number]
        return kernel if torch.equal(known, scale) else None


def _compose(work: Rewriting) -> None:
    """Merge consecutive affine maps: their factors, which are small, are multiplied beforehand."""
    known: dict[int, Op] = {}

    def combined(kind: str, one: Ref | None, two: Ref | None, new: list[Op]) -> Ref | None:
        if one is None or two is None:
            return one if two is None else two
        return work.computed(getattr(torch.ops.aten, kind).Tensor, [one, two], new)

    def rewrite(op: Op) -> list[Op]:
        if not isinstance(op.run, Affine):
            return [op]
        new: list[Op] = []
        # The one before has been rewritten already, so that chains of any length become one.
        if (before := known.get(op.reads[0])) is not None:
            x, first_scale, first_shift = before.args
            _, scale, shift = op.args
            both = combined("mul", first_scale, scale, new)
            # Nothing to scale, or no scale: combined would take the other for the product.
            moved = first_shift if first_shift is None or scale is None else combined("mul", first_shift, scale, new)
            op = Op(Affine(), (x, both, combined("add", moved, shift, new)), {}, op.outs)
        known[op.out] = op
        return [*new, op]

    work.each(rewrite)


# --- outputs that nothing reads --------------------------------------------------------------------------


def _drop_identities(work: Rewriting) -> None:
    """Drop slices of whole dimensions, and dropout in eval mode."""
    renamed: dict[int, int] = {}
    for op in work.ops:
        everything = op.kind == "slice" and work.shapes[op.out] == work.shapes[op.reads[0]]
        if everything or (op.kind.endswith("dropout") and arguments(op).get("train") is False):
            renamed[op.out] = renamed.get(op.reads[0], op.reads[0])
    work.rename(renamed)
    work.drop_unused()


def _keep_used_outputs(work: Rewriting) -> None:
    """Remove output channels of convolutions that nothing reads."""
    makers, uses = work.makers(), work.uses()
    for cut in [op for op in work.ops if op.kind == "slice"]:
        given, number = arguments(cut), cut.reads[0]
        shape = work.shapes[number]
        if given["dim"] != 1 or given["step"] != 1 or len(shape) != 4:
            continue
        chosen = range(shape[1])[given["start"] : given["end"]]
        chain: list[Op] = []
        while (maker := makers.get(number)) is not None and uses[number] == 1:
            chain.append(maker)
            if not (maker.elementwise or isinstance(maker.run, Affine)):
                break
            number = maker.reads[0]
        # All but the images themselves must be constants, of which the chosen part is taken.
        parameters = [Ref(number) for op in chain for number in op.reads[1:]]
        if chain and work.kernel(chain[-1]) is not None and all(work.constant(ref) is not None for ref in parameters):
            _keep_outputs(work, chain, chosen)
            work.replace({}, {cut.out})
            work.rename({cut.out: cut.reads[0]})
            makers, uses = work.makers(), work.uses()


def _keep_outputs(work: Rewriting, chain: list[Op], chosen: range) -> None:
    def part(item: Ref | None, axis: int) -> Ref | None:
        if item is None or work.constants[item.number].shape[axis] == 1:
            return item
        return work.add_constant(work.constants[item.number].narrow(axis, chosen.start, len(chosen)).clone())

    replaced: dict[int, Op] = {}
    for op in chain:
        samples, _, *size = work.shapes[op.out]
        work.shapes[op.out] = (samples, len(chosen), *size)
        if isinstance(op.run, Convolution):
            x, weight, bias = op.args
            replaced[op.out] = Op(op.run, (x, part(weight, op.run.out_axis), part(bias, 0)), {}, op.outs)
        elif isinstance(op.run, Affine):
            replaced[op.out] = Op(op.run, (op.args[0], *[part(item, 1) for item in op.args[1:]]), {}, op.outs)
    work.replace(replaced, set())
