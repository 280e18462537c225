"""Kernels in another form, for what reads an enlarged image and for what makes few channels: the same images."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from counterfactual_probe.engine.program.recording import record
from counterfactual_probe.engine.program.rewrites.enlarging import kernel_of_repeated
from counterfactual_probe.engine.program.rewrites.narrow import LANES, of_blocks
from counterfactual_probe.engine.program.simplify import simplify
from support.programs import build, largest_gap


@pytest.mark.parametrize(("kernel", "factor"), [(3, 2), (3, 3), (5, 2), (3, 4), (5, 4)])
def test_a_convolution_of_repeated_pixels_is_a_transposed_one(kernel: int, factor: int) -> None:
    x, weight = torch.randn(2, 5, 4, 6).double(), torch.randn(7, 5, kernel, kernel).double()
    expected = F.conv2d(F.interpolate(x, scale_factor=factor), weight, padding=kernel // 2)
    found = F.conv_transpose2d(x, kernel_of_repeated(weight, factor), None, factor, kernel // 2)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    turned = F.conv_transpose2d(x, kernel_of_repeated(weight.flip(2), factor), None, factor, kernel // 2)
    assert not torch.allclose(turned, expected)  # negative control


@pytest.mark.parametrize(("kernel", "side", "outputs"), [(3, 2, 3), (3, 4, 1), (5, 2, 4), (5, 4, 1)])
def test_pixels_of_a_block_are_outputs(kernel: int, side: int, outputs: int) -> None:
    x, weight = torch.randn(2, 5, 8, 12).double(), torch.randn(outputs, 5, kernel, kernel).double()
    expected = F.conv2d(x, weight, padding=kernel // 2)
    found = F.conv2d(x, of_blocks(weight, side), None, side, kernel // 2)
    assert found.shape[1] <= LANES
    torch.testing.assert_close(F.pixel_shuffle(found, side), expected, rtol=0, atol=1e-12)
    assert not torch.allclose(F.pixel_shuffle(found.flip(1), side), expected)  # negative control


@pytest.mark.parametrize(
    ("last", "blocks"),
    [
        (nn.Conv2d(8, 3, 3, padding=1), 4),
        (nn.Conv2d(8, 1, 5, padding=2), 16),
        (nn.Conv2d(8, 3, 1), 1),  # of single pixels
        (nn.Conv2d(8, 5, 3, padding=1), 1),  # four times as many would not fit
        (nn.Conv2d(8, 3, 2), 1),  # to an image of odd size
        (nn.Conv2d(8, 3, 3, padding=1, stride=2), 1),
        (nn.Conv2d(8, 4, 3, padding=1, groups=2), 1),
    ],
    ids=str,
)
def test_convolutions_to_few_channels_fill_the_lanes(last: nn.Conv2d, blocks: int) -> None:
    generator = build(lambda m, x: m.last(x), last=last)
    with generator.session():
        sites = [generator.site("act")]
        forms = [simplify(record(generator, sites), sites, for_processors=chosen).program for chosen in (True, False)]
    outputs = [[len(one.constants[op.reads[1]]) for op in one.ops if op.kind == "convolution"][-1] for one in forms]
    assert outputs == [blocks * last.out_channels, last.out_channels]
    assert largest_gap(generator, "act") <= 1e-11
