"""Polyphase form of convolutions that enlarge an image: ordinary ones at its small size, one for each phase.

The phases of an image enlarged by a factor are its pixels of equal remainders. A transposed
convolution of four output rows and stride 2 spends no work on zeros this way, and one after a
nearest-neighbour upsampling reads each pixel once and not four times: the taps that meet the same
pixel are added up beforehand.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from .operators import Convolution

# (phase, tap of the kernel, offset of the pixel that the tap reads), along one axis
Tap: TypeAlias = tuple[int, int, int]


@dataclass(frozen=True)
class PolyphaseConvolution:
    """Called with x (rows, inputs, H, W) and kernels (factor² · outputs, inputs, taps, taps).

    Attributes:
        starts: along one axis, the offset of each phase's first tap.
        taps: how many each phase has along one axis.
    """

    factor: int
    starts: tuple[int, ...]
    taps: int
    kind = "polyphase_convolution"
    fresh = True

    @property
    def before(self) -> int:
        return max(0, -min(self.starts))

    @property
    def after(self) -> int:
        return max(0, max(self.starts) + self.taps - 1)

    def _windows(self) -> Iterator[tuple[int, int, int]]:
        """Each phase, and the row and column of its first tap in the padded input."""
        for p, top in enumerate(self.starts):
            for q, left in enumerate(self.starts):
                yield p * self.factor + q, top + self.before, left + self.before

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return self.interleaved(self.inner(self.padded(x), weight, bias), x)

    @property
    def inner(self) -> Convolution:
        """The ordinary convolution of the padded input."""
        padding = self.before if self.before == self.after else 0
        return Convolution((1, 1), (padding, padding), (1, 1))

    def padded(self, x: Tensor) -> Tensor:
        """The input with what :attr:`inner` does not pad."""
        before, after = self.before, self.after
        return x if before == after else F.pad(x, (before, after, before, after))

    def interleaved(self, grid: Tensor, x: Tensor) -> Tensor:
        """The image (rows, outputs, factor · H, factor · W) of what :attr:`inner` makes of x."""
        s, (height, width) = self.factor, x.shape[2:]
        outputs = grid.shape[1] // s**2
        # Contiguous for few channels (an image), channels-last otherwise, as convolutions read them.
        colours = outputs <= 4 or not x.is_contiguous(memory_format=torch.channels_last)
        layout = torch.contiguous_format if colours else torch.channels_last
        shape = (len(x), outputs, s * height, s * width)
        result = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout)
        self._interleave(grid, result)
        return result

    def _interleave(self, grid: Tensor, result: Tensor) -> None:
        """Each phase's window of the grid, to that phase's pixels of the result."""
        s, outputs = self.factor, result.shape[1]
        height, width = (size // s for size in result.shape[2:])
        steps = {late - early for early, late in pairwise(self.starts)}
        if len(steps) == 1:
            # The windows move by as much from phase to phase: together they are one view, copied in one pass.
            step = steps.pop()
            n, channel, row, column = grid.stride()
            first = grid.storage_offset() + (self.starts[0] + self.before) * (row + column)
            strides = (n, channel, row, step * row + s * outputs * channel, column, step * column + outputs * channel)
            sizes = (len(result), outputs, height, s, width, s)
            result.view(sizes).copy_(grid.as_strided(sizes, strides, first))
            return
        for phase, top, left in self._windows():
            p, q = divmod(phase, s)
            part = grid[:, phase * outputs : (phase + 1) * outputs, top : top + height, left : left + width]
            result[:, :, p::s, q::s] = part

    def difference(self, change: Tensor, kernels: Tensor) -> Tensor:
        """What the output changes by when some channels of the input do, as :func:`apart` has it.

        ``change`` is (rows, m, H, W); ``kernels`` (rows, m, span, span, factor², outputs) are those of
        each row's channels, of :func:`every_offset`.
        """
        rows, m, span, _, _, outputs = kernels.shape
        s, (height, width) = self.factor, change.shape[2:]
        before, after = self.before, self.after
        patches = F.unfold(F.pad(change, (before, after, before, after)), span)
        by_pixel = torch.bmm(patches.transpose(1, 2), kernels.reshape(rows, m * span**2, -1))
        return by_pixel.view(rows, height, width, s, s, outputs).permute(0, 1, 3, 2, 4, 5)

    def every_offset(self, weight: Tensor) -> Tensor:
        """The kernels of the phases, each at its place among all offsets, by input channel:
        (inputs, span, span, factor², outputs)."""
        s, span = self.factor, self.before + self.after + 1
        outputs, inputs = len(weight) // s**2, weight.shape[1]
        result = weight.new_zeros(inputs, span, span, s * s, outputs)
        for phase, top, left in self._windows():
            of_phase = weight[phase * outputs : (phase + 1) * outputs].permute(1, 2, 3, 0)
            result[:, top : top + self.taps, left : left + self.taps, phase] = of_phase
        return result


def apart(images: Tensor, factor: int) -> Tensor:
    """A view of images (n, C, factor · H, factor · W) with their phases apart: (n, H, factor, W, factor, C)."""
    rows, channels, height, width = images.shape
    return images.permute(0, 2, 3, 1).view(rows, height // factor, factor, width // factor, factor, channels)


def of_transposed(kernel: int, stride: int, padding: int) -> list[Tap]:
    """Where the taps of a transposed convolution come from: output s·j + phase reads input j + offset."""
    return [
        (phase, tap, (phase + padding - tap) // stride)
        for phase in range(stride)
        for tap in range(kernel)
        if (phase + padding - tap) % stride == 0
    ]


def of_upsampled(kernel: int, factor: int, padding: int) -> list[Tap]:
    """The same of a convolution of stride 1 that reads an image enlarged by repeating its pixels."""
    return [(phase, tap, (phase + tap - padding) // factor) for phase in range(factor) for tap in range(kernel)]


def polyphase_convolution(weight: Tensor, factor: int, taps_read: list[Tap]) -> tuple[PolyphaseConvolution, Tensor]:
    """The operation, and the kernels it is called with, of a kernel (outputs, inputs, k, k)."""
    starts = tuple(min(offset for p, _, offset in taps_read if p == phase) for phase in range(factor))
    taps = 1 + max(offset - starts[phase] for phase, _, offset in taps_read)
    outputs, inputs = weight.shape[:2]
    kernels = weight.new_zeros(factor, factor, outputs, inputs, taps, taps)
    for p, row, y in taps_read:
        for q, column, x in taps_read:
            kernels[p, q, :, :, y - starts[p], x - starts[q]] += weight[:, :, row, column]
    return PolyphaseConvolution(factor, starts, taps), kernels.flatten(0, 2)
