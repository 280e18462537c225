"""What a sampler's hybrids keep in memory: nothing more for more steps but the values of the calls that are set."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import counterfactual_probe as cp
from counterfactual_probe.engine import Prepared
from support.paths import BENCHMARKS, module_of

LiveBytes = module_of(BENCHMARKS / "live.py").LiveBytes
PAIRS, SIDE, CHANNELS = 4, 8, 8
ACTIVATIONS = PAIRS * CHANNELS * SIDE**2 * 4  # bytes of one call of the layer, of all pairs


class Steps(nn.Module):
    """Euler steps of a small network, with a norm of fixed statistics and the time of each step in it."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.early, self.mid = nn.Conv2d(3, CHANNELS, 3, padding=1), nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.norm, self.late = nn.BatchNorm2d(CHANNELS), nn.Conv2d(CHANNELS, 3, 3, padding=1)
        self.clock = nn.Linear(1, CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        for step in range(self.steps):
            time = self.clock(x.new_full((len(x), 1), step / self.steps))[:, :, None, None]
            h = torch.relu(self.norm(self.early(x)) + time)
            x = x - self.late(torch.relu(self.mid(h) + time) + h) * (1 + time[:, :3].sin()) / self.steps
        return x


def generator(steps: int) -> cp.GeneratorAdapter:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = Steps(steps)

    def noise(n: int, rng: torch.Generator) -> Tensor:
        return torch.randn(n, 3, SIDE, SIDE, generator=rng)

    return cp.wrap(module, noise, layers=["mid#2", "mid#*"])


def peak(steps: int, layer: str) -> int:
    """Bytes at the peak of a call whose program is recorded already."""
    gen = generator(steps)
    z1, z2 = gen.sample(PAIRS, seed=0), gen.sample(PAIRS, seed=1)
    probe = cp.InfluenceMap(gen, layer)
    assert probe.attribute(z1, z2, hybrids_per_eval=8).provenance["executor"] == "prepared"
    with LiveBytes() as live:
        probe.attribute(z1, z2, hybrids_per_eval=8)
    return live.peak


def test_one_call_of_many_takes_as_much_as_of_few() -> None:
    assert 4 * ACTIVATIONS < peak(4, "mid#2") == peak(12, "mid#2")


def test_all_calls_take_the_values_of_base_and_source_of_each() -> None:
    few, more = peak(6, "mid#*"), peak(14, "mid#*")
    assert more - few == pytest.approx(8 * 2 * ACTIVATIONS, rel=0.05)


def test_weights_are_there_once_however_often_they_run() -> None:
    """Times that are folded into biases, and norms and steps' scales into kernels, copy no kernel for every call."""

    def kernels(steps: int) -> int:
        gen = generator(steps)
        constants = Prepared(gen, [frozenset(["mid#2"])])._preparation.simplified.program.constants
        stored = {value.data_ptr(): value.numel() for value in constants.values() if value.dim() == 4}
        return sum(stored.values())

    assert (
        kernels(12) - kernels(3) < 3 * CHANNELS * 9
    )  # less than the smallest kernel: what each step adds or scales by


def test_the_measure_sees_what_is_made_and_freed() -> None:
    with LiveBytes() as live:
        kept = torch.zeros(1000)
        del kept
        part = torch.ones(500).mul(2)[:3]
    assert live.peak == 4000
    assert live.now == 2000
    assert len(part) == 3
