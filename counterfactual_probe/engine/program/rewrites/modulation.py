"""Convolutions with a kernel for each sample, as StyleGAN2's, as ordinary ones.

Their usual form puts all samples into the groups of one convolution: x (n, C, H, W) is viewed as
(1, n · C, H, W), and the kernels (n, O, C, k, k), a fixed kernel times a style for each input and a
demodulation for each output, as (n · O, C, k, k). The same is the fixed kernel on x times the style,
and its result times the demodulation, which every later simplification can read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..operators import Affine, Convolution, arguments, canonical
from ..program import Op, Ref, Size
from ..rewriting import Rewriting
from ..vocabulary import RESHAPES

_ONE_EACH = Size(1, 0)


def ordinary_convolutions(work: Rewriting) -> None:
    """Rewrite every convolution of this form whose kernel is a fixed one times factors."""
    makers, uses = work.makers(), work.uses()

    def rewrite(op: Op) -> list[Op]:
        grouped = makers.get(op.reads[0]) if op.kind in RESHAPES and op.reads else None
        if grouped is None or grouped.kind not in ("conv2d", "convolution"):
            return [op]
        # With a fixed number of groups it is a Convolution by now, and nothing is to be done.
        if isinstance(grouped.run, Convolution) or uses[grouped.out] != 1:
            return [op]
        return _rewritten(work, makers, grouped, op) or [op]

    work.each(rewrite)
    work.drop_unused()


def _rewritten(work: Rewriting, makers: Mapping[int, Op], grouped: Op, view: Op) -> list[Op] | None:
    """The ordinary convolution and what scales its input and output; None if it is not of this form."""
    given = arguments(grouped)
    x, kernels = _viewed(makers, given["input"]), _viewed(makers, given["weight"])
    if given["groups"] != _ONE_EACH or given["bias"] is not None or x is None or kernels is None:
        return None
    ordinary = canonical(Op(grouped.run, (), given | {"groups": 1}, grouped.outs), work.shapes).run
    if not isinstance(ordinary, Convolution) or ordinary.transposed or not _of_samples(work, x, kernels, view):
        return None
    factors = _factors(work, makers, kernels)
    if factors is None:
        return None
    fixed, styles, demodulations = factors
    new: list[Op] = []
    for style in styles:
        x = _scaled(work, new, x, style)
    number = view.out if not demodulations else work.number(work.shapes[view.out])
    new.append(Op(ordinary, (Ref(x), work.add_constant(fixed), None), {}, (number,)))
    for demodulation in demodulations:
        last = demodulation is demodulations[-1]
        number = _scaled(work, new, number, demodulation, out=view.out if last else None)
    return new


def _of_samples(work: Rewriting, x: int, kernels: int, view: Op) -> bool:
    """Whether each group is one sample: its images, its kernels, and its result."""
    images, shape, result = work.shapes[x], work.shapes[kernels], work.shapes[view.out]
    if (len(images), len(shape), len(result)) != (4, 5, 4):
        return False
    return {images[0], shape[0], result[0]} == {_ONE_EACH} and (images[1], result[1]) == (shape[2], shape[1])


def _viewed(makers: Mapping[int, Op], item: Any) -> int | None:
    """What a value is a view of."""
    op = makers.get(item.number) if isinstance(item, Ref) else None
    return op.reads[0] if op is not None and op.kind in RESHAPES and op.reads else None


def _factors(work: Rewriting, makers: Mapping[int, Op], kernels: int) -> tuple[Tensor, list[int], list[int]] | None:
    """The fixed kernel, and the factors for inputs and for outputs that it is multiplied by."""
    styles, demodulations = list[int](), list[int]()
    _, outputs, inputs, *_ = work.shapes[kernels]
    while kernels not in work.constants:
        op = makers.get(kernels)
        if op is None or op.kind != "mul" or op.kwargs or not all(isinstance(item, Ref) for item in op.args):
            return None
        one, two = (item.number for item in op.args)
        for factor, rest in ((one, two), (two, one)):
            kinds = {(_ONE_EACH, 1, inputs, 1, 1): styles, (_ONE_EACH, outputs, 1, 1, 1): demodulations}
            if (of_kind := kinds.get(work.shapes[factor])) is not None:
                of_kind.append(factor)
                kernels = rest
                break
        else:
            return None
    fixed = work.constants[kernels]
    if fixed.dim() != 5 or tuple(fixed.shape[:3]) != (1, outputs, inputs):
        return None
    return fixed[0], styles, demodulations


def _scaled(work: Rewriting, new: list[Op], x: int, factor: int, *, out: int | None = None) -> int:
    """x times a factor for each of its channels, of each sample."""
    flat = [_ONE_EACH, work.shapes[x][1], 1, 1]
    scale = work.number(tuple(flat))
    new.append(Op(torch.ops.aten.reshape.default, (Ref(factor), flat), {}, (scale,)))
    number = work.number(work.shapes[x]) if out is None else out
    new.append(Op(Affine(), (Ref(x), Ref(scale), None), {}, (number,)))
    return number
