"""What is the same for every sample is computed once; what only looks so is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from counterfactual_probe.engine.program.program import Program
from counterfactual_probe.engine.program.recording import record
from counterfactual_probe.engine.program.simplify import simplify
from support.programs import agrees, build, conv

Rest = Callable[[Any, Tensor], Tensor]


def timed(m: Any, x: Tensor) -> Tensor:
    """The time of two steps goes through a network, and is added to a convolution's channels."""
    for step in range(2):
        times = m.clock(x.new_full((len(x), 1), step / 2).sin())
        x = m.wide(x) + times[:, :, None, None]
        x = x.relu() * (1 + times[:, :, None, None])
    return m.conv(x)  # type: ignore[no-any-return]


ALIKE: dict[str, Rest] = {
    "a time": timed,
    "a time of both halves": lambda m, x: sum(
        (m.conv(m.wide(torch.cat([x, -x])) + m.clock(torch.ones(2 * len(x), 1).double())[:, :, None, None]))
        .exp()
        .chunk(2)
    ),
    "a time in a row of its own": lambda m, x: m.conv(
        torch.cat([x[:, :7], torch.full((len(x), 1, 4, 4), 0.3).double()], 1)
    ),
    "the image's own form": lambda m, x: m.conv(x) + torch.full_like(x[:, :3], 0.2) * m.clock.bias[:3].view(3, 1, 1),
}


def simplified(rest: Rest) -> Program:
    torch.manual_seed(0)
    generator = build(rest, conv=conv(), wide=conv(8, 8), clock=nn.Linear(1, 8))
    with generator.session():
        sites = [generator.site("act")]
        return simplify(record(generator, sites), sites).program


@pytest.mark.parametrize("name", ALIKE)
def test_it_is_a_constant_and_hybrids_are_right(name: str) -> None:
    torch.manual_seed(0)
    generator = build(ALIKE[name], conv=conv(), wide=conv(8, 8), clock=nn.Linear(1, 8))
    assert agrees(generator, "act") == "prepared"
    kinds = {op.kind for op in simplified(ALIKE[name]).ops}
    assert kinds.isdisjoint({"linear", "addmm", "full", "sin"})


def test_what_a_time_adds_is_part_of_the_bias() -> None:
    ops = simplified(timed).ops
    assert [op.kind for op in ops].count("affine") == 2  # the scales, which come after relu


def test_a_layer_of_times_can_be_set() -> None:
    """Alike in clean runs, but not once hybrids set it."""
    torch.manual_seed(0)
    generator = build(timed, conv=conv(), wide=conv(8, 8), clock=nn.Linear(1, 8))
    assert agrees(generator, "clock#2") == "prepared"


def test_what_differs_by_sample_is_computed_for_each() -> None:
    kinds = [
        op.kind for op in simplified(lambda m, x: m.conv(x + m.clock(x.mean((1, 2, 3))[:, None])[..., None, None])).ops
    ]
    assert "linear" in kinds or "addmm" in kinds
