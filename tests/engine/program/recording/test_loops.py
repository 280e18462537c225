"""Forwards that take a batch apart in Python and join it again are programs all the same, if samples are alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import counterfactual_probe as cp
from counterfactual_probe.engine.program.independence import mixing_operation
from counterfactual_probe.engine.program.program import Program
from counterfactual_probe.engine.program.recording import record
from support.programs import agrees, build, conv
from support.toy_modules import vectors

Rest = Callable[[Any, Tensor], Tensor]


def denormalised(m: Any, x: Tensor) -> Tensor:
    """As diffusers does it, sample by sample."""
    images = m.conv(x)
    return torch.stack([(images[i] * 0.5 + 0.5).clamp(0, 1) for i in range(len(images))])


def each_scaled(m: Any, x: Tensor) -> Tensor:
    return torch.stack([image / image.abs().max() for image in m.conv(x)])


def written_by_sample(m: Any, x: Tensor) -> Tensor:
    result = torch.empty_like(x)
    for i in range(len(x)):
        result[i] = x[i].tanh()
    return m.conv(result)  # type: ignore[no-any-return]


def convolved_alone(m: Any, x: Tensor) -> Tensor:
    result = torch.zeros(len(x), 3, 4, 4, dtype=x.dtype)
    for i in range(len(x)):
        result[i : i + 1] = m.conv(x[i : i + 1])
    return result


def changed_by_sample(m: Any, x: Tensor) -> Tensor:
    images: Tensor = m.conv(x)
    for i in range(len(images)):
        images[i] *= 2
        images[i].add_(0.1)
    return images


def steps_of_loops(m: Any, x: Tensor) -> Tensor:
    for _ in range(3):
        x = torch.stack([x[i] - 0.1 * x[i].tanh() for i in range(len(x))])
    return m.conv(x)  # type: ignore[no-any-return]


# What a batch gets: operations on all of it, or a loop.
LOOPS: dict[str, tuple[Rest, bool]] = {
    "denormalised images": (denormalised, False),
    "nothing but taken apart": (lambda m, x: torch.stack(list(m.conv(x))), False),
    "pieces of one sample": (lambda m, x: m.conv(torch.cat([part.abs() * 2 for part in x.split(1)])), False),
    "two values of each sample": (
        lambda m, x: m.conv(torch.stack([a * b.sigmoid() for a, b in zip(x, x.tanh(), strict=True)])),
        False,
    ),
    "a value that all share": (
        lambda m, x: m.conv(torch.stack([x[i] * m.conv.weight[0][:, :1, :1] for i in range(len(x))])),
        False,
    ),
    "written by sample": (written_by_sample, False),
    "changed by sample": (changed_by_sample, False),
    "loops after loops": (steps_of_loops, False),
    "each sample's own scale": (each_scaled, True),
    "convolved alone": (convolved_alone, True),
    "concatenated": (lambda m, x: torch.cat([m.conv(part) for part in x.split(1)]), True),
}


def program_of(rest: Rest) -> Program:
    generator = build(rest, conv=conv())
    with generator.session():
        return record(generator)


@pytest.mark.parametrize("name", LOOPS)
def test_loops_over_samples_are_recorded_and_right(name: str) -> None:
    rest, loops = LOOPS[name]
    assert agrees(build(rest, conv=conv()), "act") == "prepared"
    program = program_of(rest)
    assert any(op.kind == "each_sample" for op in program.ops) == loops
    assert mixing_operation(program) is None


def numbered(m: Any, x: Tensor) -> Tensor:
    return m.conv(torch.stack([x[i] * (2.0 if i == 1 else 1.0) for i in range(len(x))]))  # type: ignore[no-any-return]


def first_otherwise(m: Any, x: Tensor) -> Tensor:
    return m.conv(torch.stack([x[i].tanh() if i == 0 else x[i].tanh() + 0 for i in range(len(x))]))  # type: ignore[no-any-return]


def backwards(m: Any, x: Tensor) -> Tensor:
    return m.conv(torch.stack([x[-1 - i] for i in range(len(x))]))  # type: ignore[no-any-return]


def of_the_first(m: Any, x: Tensor) -> Tensor:
    return m.conv(torch.stack([x[i] - 0.1 * x[0] for i in range(len(x))]))  # type: ignore[no-any-return]


@pytest.mark.parametrize("rest", [numbered, backwards, of_the_first])
def test_samples_that_are_not_alike_are_run_alone(rest: Rest) -> None:
    assert agrees(build(rest, conv=conv()), "act").startswith("full forward (one sample at a time: the samples")


def test_samples_that_are_computed_differently_are_not_rolled_up() -> None:
    expected = "replay (not prepared: the forward takes another path for another batch)"
    assert agrees(build(first_otherwise, conv=conv()), "act") == expected


@pytest.mark.parametrize("rest", [of_the_first, backwards])
def test_what_a_loop_reads_of_other_samples_is_no_proof(rest: Rest) -> None:
    generator = build(rest, conv=conv())
    generator.batchable = True
    with generator.session():
        try:
            program = record(generator)
        except Exception:
            return
        assert mixing_operation(program) is not None


class Sampler(nn.Module):
    """Steps whose states are written into one tensor, as those of torchdiffeq, and images stacked one by one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.act = nn.ConvTranspose2d(8, 8, 8), nn.SiLU()
        self.step, self.image = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.first(z[:, :, None, None])
        states = torch.empty(6, *x.shape, dtype=x.dtype)
        states[0] = self.act(x)
        for step in range(1, 6):
            states[step] = states[step - 1] + 0.2 * self.step(states[step - 1]).tanh()
        image = self.image(states[-1])
        return torch.stack([image[i].clamp(-1, 1) for i in range(len(image))])


def test_a_sampler_is_prepared_and_keeps_no_trajectory() -> None:
    gen = cp.wrap(Sampler().double().eval(), vectors(8))
    assert agrees(gen, "act") == "prepared"
    z1, z2 = gen.sample(12, seed=0), gen.sample(12, seed=1)
    maps = cp.InfluenceMap(gen, "step#3").attribute(z1, z2)
    assert maps.provenance["executor"] == "prepared"
    with gen.session():
        kinds = {op.kind for op in record(gen).ops}
    assert kinds.isdisjoint(["each_sample", "select_scatter"])
