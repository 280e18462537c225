"""What torch's own tags and schemas say of its operations, and what the recorder makes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from counterfactual_probe.engine.program.recording import record
from counterfactual_probe.engine.program.vocabulary import is_linear, is_pointwise, is_view, parameters
from support.programs import agrees, build, conv

aten = torch.ops.aten


POINTWISE = """
    relu leaky_relu elu gelu silu mish hardswish relu6 hardtanh tanh sigmoid softplus clamp abs neg exp sin square
    add radd iadd sub rsub mul rmul truediv rtruediv pow rpow where atan lerp maximum clone prelu
"""
OTHERS = "softmax cumsum max min sum conv2d view cat dropout batch_norm sort nothing_here"


@pytest.mark.parametrize("name", POINTWISE.split())
def test_pointwise_by_any_name(name: str) -> None:
    assert is_pointwise(name)


@pytest.mark.parametrize("name", OTHERS.split())
def test_not_pointwise(name: str) -> None:
    assert not is_pointwise(name)


def test_views_hold_elements_of_their_argument_as_they_are() -> None:
    views = [
        aten.view.default,
        aten.permute.default,
        aten.select.int,
        aten.expand.default,
        aten.view_as.default,
        aten.movedim.int,
    ]
    others = [
        aten.view.dtype,
        aten.as_strided.default,
        aten.to.dtype,
        aten.to.other,
        aten.chunk.default,
        aten.relu.default,
        F.relu,
    ]
    assert all(map(is_view, views))
    assert not any(map(is_view, others))


def test_views_are_linear_without_being_listed() -> None:
    assert is_linear(aten.movedim.int, "movedim")
    assert is_linear(aten.flip.default, "flip")
    assert not is_linear(aten.relu.default, "relu")
    assert not is_linear(aten.view.dtype, "view")


def test_parameters_are_those_that_functions_take() -> None:
    assert list(parameters("conv_transpose2d"))[-3:] == ["output_padding", "groups", "dilation"]
    assert parameters("interpolate")["mode"] == "nearest"
    assert parameters("cat") == {"tensors": None, "dim": 0}


PROGRAMS: dict[str, tuple[Callable[[Any, Tensor], Tensor], set[str], set[str]]] = {
    # what is done; kinds that are elementwise; kinds whose results share memory
    "no list has atan": (lambda m, x: m.conv(x.atan() + 2), {"atan", "add"}, set()),
    "a comparison has another type": (lambda m, x: m.conv(x.gt(0.1) + x), set(), set()),
    "in place": (lambda m, x: m.conv(x.mul(2).tanh_()), {"mul", "tanh"}, set()),
    "dropout gives its input back, and no schema says so": (
        lambda m, x: m.conv(F.dropout(x, 0.5, False)),
        set(),
        {"dropout"},
    ),
    "a view": (lambda m, x: m.conv(x.flatten(1).view_as(x)), set(), {"flatten", "view_as"}),
    "of another shape": (lambda m, x: m.conv(x.mul(x.new_full((2, 1, 1, 1, 1), 0.5)).sum(0)), set(), set()),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_the_recorder_notes(name: str) -> None:
    rest, elementwise, sharing = PROGRAMS[name]
    generator = build(rest, conv=conv())
    with generator.session():
        ops = record(generator).ops
    after = ops[[op.kind for op in ops].index("relu") + 1 :]
    assert {op.kind for op in after if op.elementwise} == elementwise
    assert {op.kind for op in after if not op.fresh} == sharing
    assert agrees(generator, "act") == "prepared"
