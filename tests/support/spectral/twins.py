"""Literal twins of the spectral ratios: real convolutions of single kernels, and sums over a grid of frequencies."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Stride = int | tuple[int, int]


def power(values: Tensor) -> float:
    return float((values**2).sum())


def with_zeros(kernel: Tensor, s: int) -> Tensor:
    """The kernel on a grid finer by s: zeros between its entries."""
    height, width = kernel.shape
    wide = torch.zeros(s * (height - 1) + 1, s * (width - 1) + 1, dtype=kernel.dtype)
    for y in range(height):
        for x in range(width):
            wide[s * y, s * x] = kernel[y, x]
    return wide


def ratio_up(g: Tensor, h: Tensor, stride: Stride) -> float:
    """‖h ∗ g↑s‖² / (‖g‖²‖h‖²): a transposed convolution with kernel h is given the map g (conventions 15)."""
    return power(F.conv_transpose2d(g[None, None], h[None, None], stride=stride)) / (power(g) * power(h))


def ratio_down(g: Tensor, h: Tensor, stride: Stride) -> float:
    """‖g ∗ h↑s‖² / (‖g‖²‖h‖²), of a strided convolution g and what follows it."""
    return ratio_up(h, g, stride)


def ratio_through(cause: Tensor, h: Tensor) -> float:
    """‖h ∗ x‖² / (‖x‖²‖h‖²) of a map x that operations have made of g, with zeros all around."""
    return power(F.conv_transpose2d(cause[None, None], h[None, None])) / (power(cause) * power(h))


def kernel_in(convolution: Any, source: int, target: int) -> Tensor:
    """The 2-D kernel from an input channel to an output channel; a LookupError if there is none."""
    weight = convolution.weight.detach().double()
    each_in = convolution.in_channels // convolution.groups
    each_out = convolution.out_channels // convolution.groups
    if source // each_in != target // each_out:
        raise LookupError
    if isinstance(convolution, nn.ConvTranspose2d):
        return weight[source, target % each_out]
    return weight[target, source % each_in]


def grid_power(values: Tensor, points: int, step: int = 1) -> Tensor:
    """|v̂(s·u, s·v)|² at frequencies u = i / points, by the definition of the transform."""
    height, width = values.shape[-2:]
    u = torch.arange(points, dtype=torch.float64) * step / points

    def waves(n: int) -> Tensor:
        return torch.exp(-2j * math.pi * u[:, None] * torch.arange(n))

    found = waves(height) @ values.to(torch.complex128) @ waves(width).T
    return found.abs() ** 2


def activation_ratio(maps: Tensor, f: Tensor, stride: int) -> float:
    """S000 eq. 8 on a large enough grid: maps (samples, H, W), one filter."""
    points = stride * (maps.shape[-1] - 1) + f.shape[-1] + 1
    spectrum = torch.stack([grid_power(one, points, stride) for one in maps]).mean(0)
    gain = grid_power(f, points)
    return float((spectrum * gain).mean() / (spectrum.mean() * gain.mean()))


def loss(activations: Tensor, weight: Tensor, stride: int, form: str) -> float:
    """S000 eq. 9, one (map, filter) pair after another, on a grid of M ≥ 2s(n − 1) + k points (conventions 20)."""
    n, k = activations.shape[-1], weight.shape[-1]
    points, total = 2 * stride * (n - 1) + k, 0.0
    for c in range(activations.shape[1]):
        maps = activations[:, c].double()
        bartlett = torch.stack([grid_power(one, points, stride) for one in maps]).mean(0)
        spectrum = grid_power(maps.mean(0), points, stride) if form == "printed" else bartlett
        for o in range(weight.shape[1]):
            gain = grid_power(weight[c, o].double(), points)
            if form == "scalar":
                rho = (spectrum * gain).mean() / (spectrum.mean() * gain.mean())
                total += float((gain.mean() * (rho - 1)) ** 2)
            else:
                total += float((gain * (spectrum / spectrum.mean() - 1) ** 2).mean())
    return total
