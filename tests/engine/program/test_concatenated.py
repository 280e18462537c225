"""Convolutions of an enlarged image beside another one: each part by itself, where that is the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from counterfactual_probe.adapters.flow import UNet, flow
from torch import Tensor, nn
from torch.nn import functional as F

import counterfactual_probe as cp
from counterfactual_probe.engine.program.program import Program
from counterfactual_probe.engine.program.recording import record
from counterfactual_probe.engine.program.simplify import simplify
from support.programs import build, largest_gap

# From the module's parts and the two images to what is convolved to colours at the end.
Middle = Callable[[Any, Tensor, Tensor], Tensor]


def joined(m: Any, small: Tensor, large: Tensor) -> Tensor:
    return torch.cat([m.up(small), large], 1)


def turned(m: Any, small: Tensor, large: Tensor) -> Tensor:
    return torch.cat([large, m.up(small)], 1)


def block(m: Any, x: Tensor) -> Tensor:
    """As in the U-Net of a flow: a norm, an activation and a convolution, and a shortcut around all three."""
    y: Tensor = m.conv(F.silu(m.norm(x))) + m.short(x)
    return y


def made(middle: Middle, **parts: nn.Module) -> cp.GeneratorAdapter:
    """A small and a large image of the same features, brought together; 8 channels each."""
    torch.manual_seed(0)
    usual = {
        "small": nn.Conv2d(8, 8, 1),
        "large": nn.ConvTranspose2d(8, 8, 2, 2),
        "up": nn.Upsample(scale_factor=2),
        "norm": nn.GroupNorm(4, 16),
        "conv": nn.Conv2d(16, 20, 3, padding=1),
        "short": nn.Conv2d(16, 20, 1),
        "end": nn.Conv2d(20, 3, 3, padding=1),
    }
    for part in (usual | parts).values():
        if isinstance(part, nn.GroupNorm):  # otherwise it is the same for all channels
            nn.init.normal_(part.weight)
            nn.init.normal_(part.bias)
    return build(lambda m, x: m.end(middle(m, m.small(x), m.large(x))), **(usual | parts))


def program_of(generator: cp.GeneratorAdapter, layer: str) -> Program:
    with generator.session():
        sites = [generator.site(layer)]
        return simplify(record(generator, sites), sites).program


DIVIDED: dict[str, Middle] = {
    "a convolution": lambda m, small, large: m.conv(joined(m, small, large)),
    "a norm and an activation": lambda m, small, large: m.conv(F.silu(m.norm(joined(m, small, large)))),
    "the other way round": lambda m, small, large: m.conv(F.silu(m.norm(turned(m, small, large)))),
    "with a shortcut": lambda m, small, large: block(m, joined(m, small, large)),
    "scaled": lambda m, small, large: m.conv(3 * joined(m, small, large) * m.norm.weight[None, :, None, None]),
}


@pytest.mark.parametrize("name", DIVIDED)
def test_parts_are_convolved_by_themselves(name: str) -> None:
    """Whether edits reach both images, the small one, or the large one."""
    generator = made(DIVIDED[name])
    for layer in ("act", "small", "large"):
        assert "cat" not in {op.kind for op in program_of(generator, layer).ops}
        assert largest_gap(generator, layer) <= 1e-11


def test_pixels_are_repeated_after_a_shortcut_and_not_before() -> None:
    ops = program_of(made(DIVIDED["with a shortcut"]), "act").ops
    repeated = [op.reads[0] for op in ops if op.kind == "upsample_nearest2d"]
    assert len(repeated) == 1
    assert [op.kind for op in ops if repeated[0] in op.outs] == ["convolution"]


KEPT: dict[str, tuple[Middle, dict[str, nn.Module], str]] = {
    "a group with channels of both": (DIVIDED["a norm and an activation"], {"norm": nn.GroupNorm(1, 16)}, "act"),
    "the concatenation is a layer": (
        lambda m, small, large: m.conv(m.whole(joined(m, small, large))),
        {"whole": nn.Identity()},
        "whole",
    ),
    "read elsewhere": (
        lambda m, small, large: m.conv(x := joined(m, small, large)) + x.mean((1, 2, 3), keepdim=True),
        {},
        "act",
    ),
    "pixels in between": (
        DIVIDED["a convolution"],
        {"up": nn.Upsample(scale_factor=2, mode="bilinear")},
        "act",
    ),
    "moved by two": (
        DIVIDED["a convolution"],
        {"conv": nn.Conv2d(16, 20, 3, 2, 1)},
        "act",
    ),
    "three images": (
        lambda m, small, large: m.conv(torch.cat([m.up(small), large[:, :4], large[:, 4:]], 1)),
        {},
        "act",
    ),
    "two of one size": (lambda m, _, large: m.conv(torch.cat([large, large.exp()], 1)), {}, "act"),
    "scaled for each sample": (
        lambda m, small, large: m.conv(
            (x := joined(m, small, large)) * large.mean((2, 3), keepdim=True).repeat(1, 2, 1, 1) + 0 * x
        ),
        {},
        "act",
    ),
}


@pytest.mark.parametrize("name", KEPT)
def test_a_concatenation_is_left_where_its_parts_meet(name: str) -> None:
    middle, parts, layer = KEPT[name]
    generator = made(middle, **parts)
    assert "cat" in {op.kind for op in program_of(generator, layer).ops}
    assert largest_gap(generator, layer) <= 1e-11


def test_calls_share_the_kernels_of_parts() -> None:
    """So that the memory of a sampler does not grow with its steps."""
    torch.manual_seed(0)
    network = UNet((8, 16, 16))
    kernels = []
    for steps in (2, 4):
        program = program_of(flow(network.state_dict(), image_size=16, steps=steps), "velocity.middle#1")
        assert not {"cat", "upsample_nearest2d"} <= {op.kind for op in program.ops}
        kernels.append(
            sum(value.numel() for value in program.constants.values() if value.dim() == 4 and len(value) > 1)
        )
    assert kernels[0] == kernels[1] > 0
