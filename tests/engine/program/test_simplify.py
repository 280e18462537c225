"""Each simplification of a program: it happens where it may, nowhere else, and the images are the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import counterfactual_probe as cp
from counterfactual_probe.engine.program.operators import Convolution
from counterfactual_probe.engine.program.polyphase import apart, of_transposed, of_upsampled, polyphase_convolution
from counterfactual_probe.engine.program.recording import record
from counterfactual_probe.engine.program.simplify import simplify
from support.programs import build, conv, largest_gap


def norm(channels: int) -> nn.BatchNorm2d:
    found = nn.BatchNorm2d(channels)
    found.running_mean.normal_()  # type: ignore[union-attr]
    found.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    nn.init.normal_(found.weight, 1, 0.3)
    nn.init.normal_(found.bias)
    return found


def twice(x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    return function(x) + x


def halves(x: Tensor) -> Tensor:
    return x[:, :3] + x[:, 3:]


def kinds(generator: cp.GeneratorAdapter, *layers: str) -> list[str]:
    with generator.session():
        found = simplify(record(generator), [generator.site(layer) for layer in layers])
    return [op.kind for op in found.program.ops]


def up(scale: int, mode: str = "nearest") -> nn.Upsample:
    return nn.Upsample(scale_factor=scale, mode=mode)


SPECTRAL = nn.utils.spectral_norm
PARAMETRIZED = nn.utils.parametrizations.spectral_norm

# Name -> (what comes after the layer "act", its parts, kinds that must be there, kinds that must not).
FOLDED: dict[str, tuple[Any, dict[str, Callable[[], nn.Module]], set[str], set[str]]] = {
    "batch norm": (
        lambda m, x: m.norm(m.conv(x)),
        {"conv": conv, "norm": lambda: norm(3)},
        set(),
        {"batch_norm", "affine"},
    ),
    "of a transposed convolution": (
        lambda m, x: m.norm(m.conv(x)),
        {"conv": lambda: nn.ConvTranspose2d(8, 20, 4, 2, 1), "norm": lambda: norm(20)},
        set(),
        {"batch_norm", "affine"},
    ),
    "of a grouped transposed convolution": (
        lambda m, x: m.norm(m.conv(x)),
        {"conv": lambda: nn.ConvTranspose2d(8, 6, 4, 2, 1, groups=2), "norm": lambda: norm(6)},
        set(),
        {"batch_norm", "affine"},
    ),
    "two affine maps": (
        lambda m, x: m.conv((m.norm(x) * 2.0 - m.norm.bias[None, :, None, None]) / 3.0),
        {"conv": conv, "norm": lambda: norm(8)},
        {"affine"},
        {"batch_norm", "sub"},
    ),
    "spectral norm": (lambda m, x: m.conv(x), {"conv": lambda: SPECTRAL(conv())}, set(), {"mv", "dot", "div"}),
    "parametrized": (
        lambda m, x: m.conv(x),
        {"conv": lambda: PARAMETRIZED(conv())},
        set(),
        {"mv", "dot", "div", "vdot"},
    ),
    "upsampling": (
        lambda m, x: m.conv(m.up(x)),
        {"conv": conv, "up": lambda: up(2)},
        {"polyphase_convolution"},
        {"upsample_nearest2d"},
    ),
    "upsampling by 3": (
        lambda m, x: m.conv(m.up(x)),
        {"conv": lambda: nn.Conv2d(8, 20, 5, padding=2), "up": lambda: up(3)},
        {"convolution"},
        {"upsample_nearest2d"},
    ),
    "few outputs": (
        lambda m, x: torch.tanh(m.conv(x)),
        {"conv": lambda: nn.ConvTranspose2d(8, 3, 4, 2, 1)},
        {"polyphase_convolution"},
        set(),
    ),
    "unread outputs": (
        lambda m, x: torch.tanh(m.norm(m.conv(x))[:, 1:4]),
        {"conv": lambda: conv(8, 16), "norm": lambda: norm(16)},
        set(),
        {"slice", "affine"},
    ),
}


@pytest.mark.parametrize("name", FOLDED)
def test_each_simplification_happens_and_changes_nothing(name: str) -> None:
    rest, parts, present, absent = FOLDED[name]
    torch.manual_seed(1)
    generator = build(rest, **{part: make() for part, make in parts.items()})
    before = {key: value.clone() for key, value in generator.module.state_dict().items()}
    found = kinds(generator, "act")
    assert present <= set(found)
    assert not absent & set(found)
    assert largest_gap(generator, "act") <= 1e-11
    assert largest_gap(generator, "first") <= 1e-11
    after = generator.module.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def test_unread_outputs_are_not_computed() -> None:
    generator = build(lambda m, x: torch.tanh(m.conv(x))[:, :3], conv=conv(8, 16))
    with generator.session():
        program = simplify(record(generator), [generator.site("act")], for_processors=False).program
    weights = [program.constants[op.reads[1]] for op in program.ops if isinstance(op.run, Convolution)]
    assert weights[-1].shape[0] == 3
    assert generator.module.get_submodule("conv").weight.shape[0] == 16


# The same where it would be wrong, or is not worked out: the kind that must still be there.
KEPT: dict[str, tuple[Any, dict[str, Callable[[], nn.Module]], str, str]] = {
    "convolution read twice": (
        lambda m, x: twice(m.conv(x), m.norm),
        {"conv": conv, "norm": lambda: norm(3)},
        "act",
        "affine",
    ),
    "layer between": (lambda m, x: m.norm(m.conv(x)), {"conv": conv, "norm": lambda: norm(3)}, "conv", "affine"),
    "every other output": (lambda m, x: m.conv(x)[:, ::2], {"conv": lambda: conv(8, 6)}, "act", "slice"),
    "outputs also read elsewhere": (
        lambda m, x: halves(m.conv(x)),
        {"conv": lambda: conv(8, 6)},
        "act",
        "slice",
    ),
    "upsampled also read elsewhere": (
        lambda m, x: twice(m.up(x), lambda y: nn.functional.pad(m.conv(y), (0, 0, 0, 0, 0, 5))),
        {"conv": conv, "up": lambda: up(2)},
        "act",
        "upsample_nearest2d",
    ),
    "smooth upsampling": (
        lambda m, x: m.conv(m.up(x)),
        {"conv": conv, "up": lambda: up(2, "bilinear")},
        "act",
        "upsample_bilinear2d",
    ),
    "stride": (
        lambda m, x: m.conv(m.up(x)),
        {"conv": lambda: nn.Conv2d(8, 3, 3, 2, 1), "up": lambda: up(2)},
        "act",
        "upsample_nearest2d",
    ),
    "upsampled is the layer": (
        lambda m, x: m.conv(m.up(x)),
        {"conv": conv, "up": lambda: up(2)},
        "up",
        "upsample_nearest2d",
    ),
}


@pytest.mark.parametrize("name", KEPT)
def test_a_simplification_is_left_where_it_does_not_apply(name: str) -> None:
    rest, parts, layer, kept = KEPT[name]
    torch.manual_seed(1)
    generator = build(rest, **{part: make() for part, make in parts.items()})
    assert kept in kinds(generator, layer)
    assert largest_gap(generator, layer) <= 1e-11


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "more"), [(4, 2, 1, 0), (3, 2, 1, 1), (2, 2, 0, 0), (5, 3, 1, 0), (6, 2, 2, 0)]
)
def test_phases_of_a_transposed_convolution(kernel: int, stride: int, padding: int, more: int) -> None:
    x, weight = torch.randn(2, 5, 4, 6).double(), torch.randn(5, 7, kernel, kernel).double()
    bias = torch.randn(7).double()
    run, kernels = polyphase_convolution(weight.transpose(0, 1), stride, of_transposed(kernel, stride, padding))
    expected = F.conv_transpose2d(x, weight, bias, stride, padding, more)
    torch.testing.assert_close(run(x, kernels, bias.repeat(stride**2)), expected, rtol=0, atol=1e-12)
    channels = torch.tensor([[1, 4], [0, 2]])
    change = torch.randn(2, 2, 4, 6).double()
    spread = torch.zeros_like(x)
    spread[torch.arange(2)[:, None], channels] = change
    found = run.difference(change, run.every_offset(kernels)[channels])
    expected = F.conv_transpose2d(spread, weight, None, stride, padding, more)
    torch.testing.assert_close(found, apart(expected, stride), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("kernel", "factor"), [(3, 2), (3, 3), (5, 2), (1, 2), (3, 4)])
def test_phases_of_an_upsampled_convolution(kernel: int, factor: int) -> None:
    x, weight = torch.randn(2, 5, 4, 6).double(), torch.randn(7, 5, kernel, kernel).double()
    run, kernels = polyphase_convolution(weight, factor, of_upsampled(kernel, factor, kernel // 2))
    expected = F.conv2d(F.interpolate(x, scale_factor=factor), weight, padding=kernel // 2)
    torch.testing.assert_close(run(x, kernels, None), expected, rtol=0, atol=1e-12)
    assert not torch.allclose(run(x, kernels.flip(0), None), expected)


@pytest.mark.parametrize(
    "run",
    [
        Convolution((2, 2), (1, 1), (1, 1), transposed=True),
        Convolution((1, 2), (1, 0), (1, 1), transposed=True, output_padding=(0, 1)),
        Convolution((1, 1), (1, 1), (1, 1)),
        Convolution((2, 1), (1, 2), (2, 1)),
    ],
    ids=str,
)
@pytest.mark.parametrize("m", [1, 2])
def test_the_difference_of_a_convolution_is_that_of_two_outputs(run: Convolution, m: int) -> None:
    weight = torch.randn((6, 4, 3, 2) if run.transposed else (4, 6, 3, 2)).double()
    before = torch.randn(5, 6, 7, 8).double()
    channels = torch.stack([torch.randperm(6)[:m] for _ in range(5)])
    after, rows = before.clone(), torch.arange(5)[:, None]
    change = torch.randn(5, m, 7, 8).double()
    after[rows, channels] += change
    expected = run(after, weight, None) - run(before, weight, None)
    by_input = weight if run.transposed else weight.transpose(0, 1)
    torch.testing.assert_close(run.difference(change, by_input[channels]), expected, rtol=0, atol=1e-12)
    assert expected.abs().max() > 1e-3
