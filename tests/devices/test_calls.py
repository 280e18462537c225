"""Calls on a GPU: what they wait for, what they do when memory runs out, and when the GPU is taken away."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import counterfactual_probe as cp
from counterfactual_probe.base import checkpoint
from counterfactual_probe.base.memory import Awaited, on_device
from counterfactual_probe.engine import Prepared
from support.devices.cases import ACCELERATORS, STAND_IN
from support.devices.standin import StandIn
from support.toy_modules import vectors
from support.toys import FLOAT32, PLAIN, TOKENS, TOYS, Toy

BFLOAT16 = next(toy for toy in TOYS if toy.name == "bfloat16")
ON_IT = pytest.mark.parametrize("device", [STAND_IN])
PAIRS = 4


def reads_of(toy: Toy, stand_in: StandIn, sets: int) -> dict[str, int]:
    """What one block of pairs waits for, in batches of four hybrids at most, once its program is there."""
    generator = replace(toy, device=STAND_IN).generator()
    units = [[number % 3, 3] for number in range(sets)]
    call = cp.InfluenceMap(generator, toy.layer).attribute
    call(n_pairs=PAIRS, units=units, hybrids_per_eval=PAIRS)
    stand_in.reads.clear()
    call(n_pairs=PAIRS, units=units, hybrids_per_eval=PAIRS)
    return dict(stand_in.reads)


@ON_IT
@pytest.mark.parametrize("toy", [PLAIN, TOKENS, FLOAT32], ids=lambda toy: toy.name)
def test_nothing_is_waited_for_once_per_batch(toy: Toy, device: str, stand_in: StandIn) -> None:
    few, many = (reads_of(toy, stand_in, sets) for sets in (6, 24))
    assert few == many
    assert sum(few.values()) > 0  # the weights' hash and the maps in the end, for two


@ON_IT
def test_batches_that_are_checked_are_waited_for(device: str, stand_in: StandIn) -> None:
    """The control: where the module's own code runs, one hybrid of each batch is compared with one alone."""
    few, many = (reads_of(BFLOAT16, stand_in, sets) for sets in (6, 24))
    assert sum(many.values()) > sum(few.values()) + 10


@ON_IT
def test_sets_that_may_stop_are_asked_all_at_once(device: str, stand_in: StandIn) -> None:
    generator = replace(PLAIN, device=STAND_IN).generator()
    found = []
    for sets in (2, 12):
        units = [[number % 3, 3 + number % 2] for number in range(sets)]
        call = cp.InfluenceMap(generator, PLAIN.layer).attribute
        for _ in range(2):
            stand_in.reads.clear()
            call(n_pairs=32, units=units, tolerance=1e-9, hybrids_per_eval=256)
        found.append(dict(stand_in.reads))
    assert found[0] == found[1]


@pytest.mark.parametrize("device", ["cpu", *ACCELERATORS])
def test_numbers_come_and_answers_go(device: str) -> None:
    target = torch.device("cpu" if device == "cpu" else "cuda", None if device == "cpu" else 0)
    numbers = on_device([3, 1], target)
    assert (numbers.tolist(), numbers.dtype, numbers.device) == ([3, 1], torch.int64, target)
    assert on_device([], target).dtype is torch.int64
    assert bool(Awaited((numbers > 0).all()))
    assert not Awaited((numbers > 1).all())


@pytest.mark.parametrize("device", ACCELERATORS)
def test_images_of_a_later_batch_that_are_no_numbers(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are seen one batch late, and no map is made of them."""
    generator = replace(PLAIN, device=device).generator()
    call = cp.InfluenceMap(generator, PLAIN.layer).attribute
    expected = call(n_pairs=6, hybrids_per_eval=5)
    right, batches = Prepared.intervened, 0

    def late(self: Prepared, base: Any, runs: Any) -> Tensor:
        nonlocal batches
        batches += 1
        return right(self, base, runs) * (float("nan") if batches == 3 else 1.0)

    monkeypatch.setattr(Prepared, "intervened", late)
    found = call(n_pairs=6, hybrids_per_eval=5)
    assert "prepared disagreed: an image is not finite" in found.provenance["executor"]
    assert (found.maps - expected.maps).abs().max() <= 1e-6
    assert torch.isfinite(found.standard_error).all()


class Full(nn.Module):
    """A generator for which a GPU has room up to some rows."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.inner, self.room = PLAIN.plain(), room

    def forward(self, z: Tensor) -> Tensor:
        image: Tensor = self.inner(z)
        if len(z) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate more than there is")
        return image


@pytest.mark.parametrize("device", ACCELERATORS)
@pytest.mark.parametrize("room", [1, 3, 7])
def test_too_little_memory_halves_batches_and_changes_no_map(room: int, device: str, only_replay: None) -> None:
    found = []
    for rows in (10**6, room):
        module = Full(10**6)
        generator = cp.wrap(module.to("cuda"), vectors(5))
        module.room = rows
        maps = cp.InfluenceMap(generator, "inner.main.2").attribute(n_pairs=5, hybrids_per_eval=16)
        found.append(maps)
    assert (found[0].maps - found[1].maps).abs().max() <= 1e-6
    assert found[0].provenance["hybrids_per_eval"] == 16
    assert found[1].provenance["hybrids_per_eval"] < 16


@pytest.mark.parametrize("device", ACCELERATORS)
def test_memory_that_the_batch_before_still_takes_is_no_reason_to_halve(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = replace(PLAIN, device=device).generator()
    call = cp.InfluenceMap(generator, PLAIN.layer).attribute
    expected = call(n_pairs=6, hybrids_per_eval=5)
    right, batches = Prepared.intervened, 0

    def once(self: Prepared, base: Any, runs: Any) -> Tensor:
        nonlocal batches
        batches += 1
        if batches == 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return right(self, base, runs)

    monkeypatch.setattr(Prepared, "intervened", once)
    found = call(n_pairs=6, hybrids_per_eval=5)
    assert found.provenance["hybrids_per_eval"] == 5
    assert torch.equal(found.maps, expected.maps)


@ON_IT
def test_a_gpu_that_is_taken_away_leaves_its_checkpoint(
    device: str, stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "SECONDS_BETWEEN", 0.0)
    file, toy = tmp_path / "maps", replace(PLAIN, device=STAND_IN)
    options: dict[str, Any] = {"n_pairs": 12, "hybrids_per_eval": 2, "checkpoint": file}
    expected = cp.InfluenceMap(toy.generator(), toy.layer).attribute(**options | {"checkpoint": None})
    right, batches = Prepared.intervened, 0

    def lost(self: Prepared, base: Any, runs: Any) -> Tensor:
        nonlocal batches
        batches += 1
        stand_in.is_lost = batches > 20
        return right(self, base, runs)

    with monkeypatch.context() as patch:
        patch.setattr(Prepared, "intervened", lost)
        generator = toy.generator()
        with pytest.raises((cp.ProbeError, RuntimeError), match="CUDA error: unspecified launch failure"):
            cp.InfluenceMap(generator, toy.layer).attribute(**options)
    assert file.exists()
    stand_in.is_lost = False
    ran: list[int] = []
    monkeypatch.setattr(Prepared, "intervened", lambda *given: ran.append(1) or right(*given))
    again = cp.InfluenceMap(toy.generator(), toy.layer).attribute(**options)
    assert torch.equal(again.maps, expected.maps)
    assert 0 < len(ran) < 12 * 3  # not all of it


def test_without_a_gpu_the_error_names_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with ``CUDA_VISIBLE_DEVICES`` empty, or on a machine that has another kind of device."""
    for device in ("cuda", "mps", "xpu"):
        if not getattr(torch, device).is_available():
            with pytest.raises(cp.ProbeError, match=rf"device '{device}' cannot be used here .*; try 'cpu'"):
                cp.wrap(PLAIN.plain(), vectors(5), device=device)
