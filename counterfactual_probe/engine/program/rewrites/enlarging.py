"""Convolutions that enlarge an image, or read an enlarged one.

One of an image whose pixels are repeated is a transposed one, which reads each pixel once: of 3×3 taps and pixels
repeated twice, 2.25 times fewer multiplications. To few channels, polyphase form is faster than either.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from ..operators import Convolution
from ..polyphase import PolyphaseConvolution, of_transposed, of_upsampled, polyphase_convolution
from ..program import Op, Ref
from ..rewriting import Rewriting, Shape, kernel_layout

# A transposed convolution to this many values for a pixel of its input is faster in polyphase form.
_FEW_OUTPUTS = 64
_FACTORS = (2, 3, 4)


def upsampled_convolutions(work: Rewriting) -> None:
    """A convolution of an image enlarged by repeating pixels, on the image before that."""
    makers, uses = work.makers(), work.uses()

    def rewrite(op: Op) -> list[Op]:
        weight = work.kernel(op)
        before = makers.get(op.reads[0]) if weight is not None else None
        if weight is None or before is None or uses[op.reads[0]] != 1:
            return [op]
        if repeats(work, before) is None or not keeps_size(op, weight):
            return [op]
        return of_repeated(work, before, before.reads[0], op)

    work.each(rewrite)


def repeats(work: Rewriting, op: Op) -> int | None:
    """How often an operation repeats the pixels of an image along each side; None if it does something else."""
    if op.kind != "upsample_nearest2d":
        return None
    small, large = work.shapes[op.reads[0]], work.shapes[op.out]
    factor = large[2] // small[2]
    return factor if factor in _FACTORS and all(large[i] == factor * small[i] for i in (2, 3)) else None


def keeps_size(op: Op, weight: Tensor) -> bool:
    """Whether a convolution moves a square kernel of odd size by single pixels, and its images stay as large."""
    run, kernel = op.run, weight.shape[2]
    if not isinstance(run, Convolution) or run.transposed or weight.shape[3] != kernel:
        return False
    return run.stride == run.dilation == (1, 1) and run.padding == (kernel // 2, kernel // 2) and kernel % 2 == 1


def of_repeated(work: Rewriting, repeating: Op, small: int, op: Op) -> list[Op]:
    """What stands for a convolution of an image whose pixels are repeated: it reads the image before that."""
    weight, factor = work.kernel(op), repeats(work, repeating)
    if weight is None or factor is None:
        raise ValueError(f"{op.kind} of {repeating.kind} is not worked out")
    kernel = weight.shape[2]
    if kernel > 1 and len(weight) * factor**2 > _FEW_OUTPUTS:
        transposed = work.once(
            ("transposed", op.args[1]), lambda: work.add_constant(kernel_of_repeated(weight, factor))
        )
        run = Convolution((factor, factor), (kernel // 2, kernel // 2), (1, 1), transposed=True)
        return [Op(run, (Ref(small), transposed, op.args[2]), {}, op.outs)]
    if kernel > 1:
        taps = of_upsampled(kernel, factor, kernel // 2)
        return [_polyphase(work, op, small, lambda: polyphase_convolution(weight, factor, taps))]
    # Each pixel by itself: the results are repeated.
    samples, channels, *_ = work.shapes[op.out]
    made = work.number((samples, channels, *work.shapes[small][2:]))
    return [_on(op, small, made), _on(repeating, made, op.out)]


def kernel_of_repeated(weight: Tensor, factor: int) -> Tensor:
    """The kernel (inputs, outputs, k + factor − 1, …) of the transposed convolution that does the same.

    Its taps are those of a kernel (outputs, inputs, k, k), moved over all pixels that an input pixel is repeated to,
    and added up.
    """
    outputs, inputs, kernel, _ = weight.shape
    wide = kernel + factor - 1
    shape, layout = (inputs, outputs, wide, wide), kernel_layout(weight)
    result = torch.empty(shape, dtype=weight.dtype, device=weight.device, memory_format=layout).zero_()
    turned = weight.transpose(0, 1).flip(2, 3)
    for row in range(factor):
        for column in range(factor):
            result[:, :, row : row + kernel, column : column + kernel] += turned
    return result


def _on(op: Op, x: int, out: int) -> Op:
    """The same operation on another value."""
    return replace(op, args=(Ref(x), *op.args[1:]), outs=(out,))


def transposed_convolutions(work: Rewriting) -> None:
    """Transposed convolutions to few channels, whose own code is slow, in polyphase form."""

    def rewrite(op: Op) -> list[Op]:
        run, weight = op.run, work.kernel(op)
        if not isinstance(run, Convolution) or weight is None:
            return [op]
        if weight.shape[1] * run.stride[0] ** 2 > _FEW_OUTPUTS:
            return [op]
        sizes = work.shapes[op.reads[0]], work.shapes[op.out]
        if not _enlarges(run, weight, *sizes):
            return [op]
        return [_polyphase(work, op, op.reads[0], lambda: _of_transposed(run, weight))]

    work.each(rewrite)


def transposed_as_polyphase(
    run: Convolution, weight: Tensor, small: Shape, large: Shape
) -> tuple[PolyphaseConvolution, Tensor] | None:
    """A transposed convolution that enlarges by its stride, in polyphase form: the operation and its kernels."""
    return _of_transposed(run, weight) if _enlarges(run, weight, small, large) else None


def _enlarges(run: Convolution, weight: Tensor, small: Shape, large: Shape) -> bool:
    """Whether it is a transposed convolution, of a square kernel, that enlarges by its stride."""
    kernel, stride, padding = weight.shape[2], run.stride[0], run.padding[0]
    if not run.transposed or run.groups != 1 or run.dilation != (1, 1) or run.stride[1] != stride:
        return False
    if run.padding[1] != padding or not kernel == weight.shape[3] >= stride > 1:
        return False
    return all(large[i] == stride * small[i] for i in (2, 3))


def _of_transposed(run: Convolution, weight: Tensor) -> tuple[PolyphaseConvolution, Tensor]:
    stride = run.stride[0]
    return polyphase_convolution(weight.transpose(0, 1), stride, of_transposed(weight.shape[2], stride, run.padding[0]))


def _polyphase(work: Rewriting, op: Op, x: int, make: Callable[[], tuple[PolyphaseConvolution, Tensor]]) -> Op:
    """The polyphase operation that stands for a convolution; each phase adds the same bias."""

    def made() -> tuple[PolyphaseConvolution, Ref]:
        run, kernels = make()
        return run, work.add_constant(kernels)

    run, kernels = work.once(("polyphase", op.args[1], op.run), made)
    bias = work.constant(op.args[2])
    repeated = None if bias is None else work.add_constant(bias.repeat(run.factor**2))
    return Op(run, (Ref(x), kernels, repeated), {}, op.outs)
