"""Convolutions to few channels, such as the colours of an image, for vector instructions of many lanes.

A CPU computes sixteen output channels at a time, so that a convolution to three colours leaves most lanes idle. The
pixels of a block of 2×2 are as many outputs more: a kernel that is larger by one and moves by two gives all of them,
with 1.8 times the multiplications (of 3×3 kernels) in a third of the instructions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..operators import Convolution
from ..program import Op, Ref
from ..rewriting import Rewriting
from .enlarging import keeps_size

LANES = 16  # of float32 in the widest registers
_LEAST_KERNEL = 3  # that of 1×1 would only be moved about


def narrow_convolutions(work: Rewriting) -> None:
    """Convolutions on a CPU whose outputs fill less than half of the lanes, by blocks of pixels."""

    def rewrite(op: Op) -> list[Op]:
        weight = work.kernel(op)
        if weight is None or weight.device.type != "cpu" or not keeps_size(op, weight):
            return [op]
        side = _side(weight, work.shapes[op.out][2:])
        if side == 1 or weight.shape[2] < _LEAST_KERNEL:
            return [op]
        samples, outputs, height, width = work.shapes[op.out]
        number = work.number((samples, outputs * side**2, height // side, width // side))
        kernel = work.once(("blocks", op.args[1], side), lambda: work.add_constant(of_blocks(weight, side)))
        bias = work.constant(op.args[2])
        repeated = None if bias is None else work.add_constant(bias.repeat_interleave(side**2))
        padding = op.run.padding  # type: ignore[attr-defined]
        run = Convolution((side, side), padding, (1, 1))
        return [
            Op(run, (op.args[0], kernel, repeated), {}, (number,)),
            Op(torch.ops.aten.pixel_shuffle.default, (Ref(number), side), {}, op.outs, new_memory=True),
        ]

    work.each(rewrite)
    work.drop_unused()


def _side(weight: Tensor, size: tuple[int, int]) -> int:
    """The side of the largest block of pixels whose outputs are computed at a time."""
    fitting = [side for side in (2, 4) if len(weight) * side**2 <= LANES and not any(one % side for one in size)]
    return max(fitting, default=1)


def of_blocks(weight: Tensor, side: int) -> Tensor:
    """The kernels (outputs · side², inputs, k + side − 1, …) of the pixels of a block, as pixel_shuffle places them."""
    outputs, inputs, kernel, _ = weight.shape
    wide = kernel + side - 1
    result = weight.new_zeros(outputs, side, side, inputs, wide, wide)
    for row in range(side):
        for column in range(side):
            result[:, row, column, :, row : row + kernel, column : column + kernel] = weight
    return result.flatten(0, 2)
