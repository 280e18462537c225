"""Convolutions with a kernel for each sample become ordinary ones where that is the same, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import counterfactual_probe as cp
from counterfactual_probe.engine.program.program import Size, leaves
from counterfactual_probe.engine.program.recording import record
from counterfactual_probe.engine.program.simplify import simplify
from support.programs import agrees, build, conv, largest_gap


def grouped(x: Tensor, kernels: Tensor, **options: Any) -> Tensor:
    """All samples in the groups of one convolution."""
    n, c, h, w = x.shape
    out = F.conv2d(x.reshape(1, n * c, h, w), kernels.reshape(-1, c, 3, 3), padding=1, groups=n, **options)
    return out.view(n, -1, *out.shape[2:])


def style(m: Any, x: Tensor) -> Tensor:
    return m.style(x.mean((2, 3)))[:, None, :, None, None]  # type: ignore[no-any-return]


def demodulated(kernels: Tensor) -> Tensor:
    return kernels * torch.rsqrt(kernels.square().sum((2, 3, 4), keepdim=True) + 1e-8)


def stylegan(m: Any, x: Tensor) -> Tensor:
    return grouped(x, demodulated(m.conv.weight[None] * style(m, x)))


def stylegan_by_view(m: Any, x: Tensor) -> Tensor:
    kernels = m.conv.weight[None] * style(m, x)
    norm = torch.rsqrt(kernels.pow(2).sum([2, 3, 4]) + 1e-8)
    return grouped(F.interpolate(x, scale_factor=2), kernels * norm.view(len(x), -1, 1, 1, 1))


SAME: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "styles and demodulation": stylegan,
    "the other way round, enlarged": stylegan_by_view,
    "styles alone": lambda m, x: grouped(x, style(m, x) * m.conv.weight[None]),
    "two styles": lambda m, x: grouped(x, style(m, x) * (style(m, 2 * x) * (m.conv.weight[None] * 0.5))),
}
OTHER: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "kernels that are summed": lambda m, x: grouped(x, m.conv.weight[None] + style(m, x)),
    "a factor for each tap": lambda m, x: grouped(x, m.conv.weight[None] * style(m, x)[..., :1].expand(-1, 3, 8, 3, 3)),
    "a bias": lambda m, x: grouped(x, m.conv.weight[None] * style(m, x), bias=m.conv.bias.repeat(len(x))),
}


def built(rest: Callable[[Any, Tensor], Tensor]) -> cp.GeneratorAdapter:
    return build(rest, conv=conv(), style=nn.Linear(8, 8))


@pytest.mark.parametrize("name", SAME)
def test_kernels_that_are_a_fixed_one_times_factors(name: str) -> None:
    generator = built(SAME[name])
    with generator.session():
        kinds = [op.kind for op in simplify(record(generator), [generator.site("act")]).program.ops]
    assert kinds.count("convolution") + kinds.count("polyphase_convolution") == 2  # the other makes "act"
    assert "affine" in kinds
    assert largest_gap(generator, "act") <= 1e-10


@pytest.mark.parametrize("name", OTHER)
def test_other_kernels_are_left_and_right_all_the_same(name: str) -> None:
    generator = built(OTHER[name])
    with generator.session():
        ops = simplify(record(generator), [generator.site("act")]).program.ops
    assert any(Size(1, 0) in leaves((op.args, dict(op.kwargs))) for op in ops if op.kind in ("conv2d", "convolution"))
    # The repeated bias is a clean value with a row for each sample and output.
    assert agrees(generator, "act") == "prepared"


def test_a_view_of_an_ordinary_convolution_is_left_alone() -> None:
    generator = built(lambda m, x: m.conv(x).view(len(x), 3, -1).mul(2).view(len(x), 3, *x.shape[2:]))
    assert agrees(generator, "act") == "prepared"
