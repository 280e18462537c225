"""The stand-in for a GPU refuses what a GPU refuses, and counts what a GPU is waited for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import counterfactual_probe as cp
from counterfactual_probe.engine.prepared import batch
from support.devices.standin import DEVICE, StandIn
from support.toy_modules import vectors
from support.toys import FLOAT32, PLAIN, Toy

ON_IT = pytest.mark.parametrize("device", ["stand-in"])
MISTAKES: dict[str, Callable[[Tensor], Any]] = {
    "add": lambda x: x + torch.ones(3),
    "cat": lambda x: torch.cat([x, torch.ones(3)]),
    "a linear layer": nn.Linear(3, 2),
    "an aten operation": lambda x: torch.ops.aten.add.Tensor(x, torch.ones(3)),
    "into a list of places": lambda x: x.__setitem__([0, 1], torch.ones(2)),
    "an index there of values here": lambda x: torch.ones(3)[x.long()],
    "another device": lambda x: x.to("cuda:1"),
    "another device's generator": lambda x: torch.randn(3, generator=torch.Generator(), device=x.device),
}


@ON_IT
@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_what_mixes_devices_raises(mistake: Callable[[Tensor], Any], device: str) -> None:
    with pytest.raises(RuntimeError, match="device"):
        mistake(torch.zeros(3, device="cuda"))


@ON_IT
def test_numpy_does_not_see_its_memory(device: str) -> None:
    x = torch.zeros(3, device="cuda")
    with pytest.raises(TypeError, match="can't convert cuda:0 device type tensor to numpy"):
        x.numpy()
    with pytest.raises(TypeError, match="can't convert cuda:0 device type tensor to numpy"):
        np.asarray(x)
    assert x.cpu().numpy().sum() == 0


@ON_IT
def test_what_is_right_on_a_gpu_is_right_here(device: str) -> None:
    x = torch.arange(6, device="cuda").view(2, 3).float()
    for there in (
        x[0],
        x.T,
        x * 2,
        torch.zeros_like(x),
        x.new_ones(1),
        x.to(torch.float64),
        x[torch.tensor([1])],
        x.data,
    ):
        assert there.device == DEVICE
        assert there.is_cuda
    for here in (x.cpu(), x.to("cpu", torch.float64), torch.ones(2), torch.zeros_like(x, device="cpu")):
        assert here.device == torch.device("cpu")
    assert (x + torch.tensor(1.0)).device == DEVICE  # a single number may come from the CPU
    place = torch.zeros(2, 3)
    place[1] = x[1]  # a copy goes anywhere
    assert place[1].tolist() == [3.0, 4.0, 5.0]
    assert place.device == torch.device("cpu")
    module = nn.Linear(3, 2).to("cuda")
    assert module(x).device == module.weight.device == DEVICE


@ON_IT
def test_its_random_numbers_are_its_own(device: str, stand_in: StandIn) -> None:
    before = torch.get_rng_state()
    stand_in.manual_seed(3)
    state = stand_in.get_rng_state()
    one = torch.randn(4, device="cuda")
    assert torch.equal(torch.get_rng_state(), before)
    stand_in.set_rng_state(state)
    assert torch.equal(torch.randn(4, device="cuda"), one)
    assert not torch.equal(torch.randn(4, device="cuda"), one)


@ON_IT
def test_what_python_reads_is_counted(device: str, stand_in: StandIn) -> None:
    x = torch.ones(3, device="cuda")
    y = (x * 2).sum() + x.mean()
    assert not stand_in.reads
    assert float(y) == 7
    assert bool((x > 0).all())
    x[x > 0] = 2  # how many are set is known only when they are counted
    x.cpu()
    assert stand_in.reads == {"__float__": 1, "__bool__": 1, "__setitem__": 1, "cpu": 1}


@ON_IT
def test_a_mistake_of_the_library_would_show(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the swapped units listed on the CPU, say, hybrids would not run."""
    generator = cp.wrap(PLAIN.plain().to("cuda"), vectors(5))
    made = batch.new
    monkeypatch.setattr(batch, "new", lambda shape, dtype, _device: made(shape, dtype, torch.device("cpu")))
    maps = cp.InfluenceMap(generator, "main.2").attribute(n_pairs=4)
    assert "found at least two devices" in maps.provenance["executor"]


@pytest.mark.parametrize("toy", [PLAIN, FLOAT32], ids=lambda toy: toy.name)
def test_maps_are_those_of_the_cpu(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    here = cp.InfluenceMap(toy.generator(), toy.layer).attribute(n_pairs=3)
    stand_in = StandIn()
    stand_in.install(monkeypatch)
    with stand_in:
        there = cp.InfluenceMap(cp.wrap(toy.plain().to("cuda"), toy.sampler), toy.layer).attribute(n_pairs=3)
    assert (here.maps - there.maps).abs().max() <= 1e-6
    assert (here.provenance["device"], there.provenance["device"]) == ("cpu", "cuda")
    assert here.provenance["executor"] == there.provenance["executor"] == "prepared"
