"""The kernels of interpolations and poolings, read off the operations themselves."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from .autocorrelation import Size

# Farther from an impulse than any interpolation of torch reaches.
_AROUND = 6


def spread(kernel: Tensor, factor: Size) -> Tensor:
    """Zeros between the entries: the kernels (…, kh, kw) on a grid finer by ``factor``."""
    if factor == (1, 1):
        return kernel
    *others, height, width = kernel.shape
    wide = kernel.new_zeros(*others, (height - 1) * factor[0] + 1, (width - 1) * factor[1] + 1)
    wide[..., :: factor[0], :: factor[1]] = kernel
    return wide


def convolved(one: Tensor | None, two: Tensor | None) -> Tensor | None:
    """The full convolution of two kernels; None is the delta."""
    if one is None or two is None:
        return two if one is None else one
    height, width = two.shape
    # A correlation with the mirrored kernel; only autocorrelations are taken of the result.
    return F.conv2d(one[None, None], two.flip(0, 1)[None, None], padding=(height - 1, width - 1))[0, 0]


def upsampling_kernel(operation: Callable[[Tensor, Size], Tensor], factor: Size) -> Tensor | None:
    """What one pixel becomes under an interpolation to a given size; None if it stays one pixel."""
    side = 2 * _AROUND + 1
    with torch.inference_mode(False), torch.no_grad():
        impulse = torch.zeros(1, 1, side, side, dtype=torch.float64)
        impulse[0, 0, _AROUND, _AROUND] = 1
        return _trimmed(operation(impulse, (side * factor[0], side * factor[1]))[0, 0])


def downsampling_kernel(operation: Callable[[Tensor, Size], Tensor], factor: Size) -> Tensor | None:
    """With which weights pixels enter one pixel of a reduction to a given size; None if only one does."""
    side = 2 * _AROUND + 1
    with torch.inference_mode(False), torch.enable_grad():
        pixels = torch.zeros(1, 1, side * factor[0], side * factor[1], dtype=torch.float64, requires_grad=True)
        middle = operation(pixels, (side, side))[0, 0, _AROUND, _AROUND]
        (weights,) = torch.autograd.grad(middle, pixels)
        return _trimmed(weights[0, 0])


def _trimmed(response: Tensor) -> Tensor | None:
    rows, columns = (response != 0).any(1).nonzero()[:, 0], (response != 0).any(0).nonzero()[:, 0]
    kernel = response[int(rows[0]) : int(rows[-1]) + 1, int(columns[0]) : int(columns[-1]) + 1].clone()
    return None if kernel.shape == (1, 1) else kernel
