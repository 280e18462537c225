"""Enough pairs and no more: when sets stop, what they then hold, and whether the error bars can be believed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import counterfactual_probe as cp
from counterfactual_probe.influence.accumulator import MapAccumulator
from counterfactual_probe.influence.arrays import MapArrays
from support import toys


class Scaled(nn.Module):
    """Three channels that add to the image; the third is rarely anything but zero."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = Rare()

    def forward(self, z: Tensor) -> Tensor:
        return self.layer(z)[:, :, None, None] * torch.ones(1, 1, 2, 2, dtype=z.dtype)


class Rare(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return torch.stack([z[:, 0], z[:, 1].exp(), torch.relu(z[:, 2] - 100)], 1)


def generator() -> cp.GeneratorAdapter:
    return cp.wrap(Scaled(), toys.vectors(3))


def test_sets_stop_at_fixed_counts_once_precise_enough() -> None:
    maps = cp.InfluenceMap(generator(), "layer").attribute(n_pairs=400, tolerance=0.1)
    assert all(int(n) % 16 == 0 for n in maps.n_pairs)
    assert maps.n_pairs[0] < maps.n_pairs[1], "a heavy tail needs more pairs"
    assert maps.n_pairs[1] < 400
    assert maps.n_pairs[2] == 400, "what never acted may yet: it costs nothing, and goes on to the limit"
    assert (maps.relative_error <= 0.1).all()
    assert maps.missed == ()
    for chosen in (0, 1):
        n = int(maps.n_pairs[chosen])
        alone = cp.InfluenceMap(generator(), "layer").attribute(n_pairs=n, units=[chosen])
        torch.testing.assert_close(maps.maps[chosen], alone.maps[0], rtol=0, atol=1e-6)
        torch.testing.assert_close(maps.standard_error[chosen], alone.standard_error[0], rtol=0, atol=1e-6)
        earlier = cp.InfluenceMap(generator(), "layer").attribute(n_pairs=n - 16, units=[chosen])
        assert earlier.relative_error[0] > 0.1, "it stopped at the first chance"


def test_relative_error_is_the_ratio_of_norms() -> None:
    maps = cp.InfluenceMap(toys.PLAIN.generator(), "main.6").attribute(n_pairs=5)
    expected = [
        np.linalg.norm(error.double().numpy()) / np.linalg.norm(mean.double().numpy())
        for mean, error in zip(maps.maps, maps.standard_error, strict=True)
    ]
    np.testing.assert_allclose(maps.relative_error.numpy(), expected, rtol=1e-5)


def test_sets_that_miss_it_are_listed() -> None:
    influence = cp.InfluenceMap(generator(), "layer")
    maps = influence.attribute(n_pairs=48, tolerance=0.02)
    assert maps.n_pairs.tolist() == [48, 48, 48]
    assert [dict(units) for units in maps.missed] == [{"layer": (0,)}, {"layer": (1,)}]
    assert influence.attribute(n_pairs=48).missed == ()


@pytest.mark.parametrize("hybrids_per_eval", [1, 3, 50])
def test_batches_change_no_decision(hybrids_per_eval: int) -> None:
    influence = cp.InfluenceMap(toys.PLAIN.generator(), "main.6")
    one = influence.attribute(n_pairs=96, tolerance=0.1)
    two = influence.attribute(n_pairs=96, tolerance=0.1, hybrids_per_eval=hybrids_per_eval)
    assert one.n_pairs.tolist() == two.n_pairs.tolist()
    assert len(set(one.n_pairs.tolist())) > 1
    torch.testing.assert_close(one.maps, two.maps, rtol=0, atol=1e-6)


def test_fewer_pairs_are_run_and_latents_are_shared(only_replay: None) -> None:
    """Sets that have stopped are not run again; those that go on get the same pairs as ever."""
    toy = toys.PLAIN.generator()
    plain = cp.InfluenceMap(toy, "main.6").attribute(n_pairs=96)
    rows = 0

    def count(_module: object, inputs: tuple[Tensor, ...]) -> None:
        nonlocal rows
        rows += len(inputs[0])

    handle = toy.module.get_submodule("main.7").register_forward_pre_hook(count)
    stopped = cp.InfluenceMap(toy, "main.6").attribute(n_pairs=96, tolerance=0.1)
    with_tolerance, rows = rows, 0
    cp.InfluenceMap(toy, "main.6").attribute(n_pairs=96)
    handle.remove()
    assert with_tolerance < rows
    last = int(stopped.n_pairs.argmax())
    if stopped.n_pairs[last] == 96:
        torch.testing.assert_close(stopped.maps[last], plain.maps[last], rtol=0, atol=1e-6)


@pytest.mark.parametrize("tolerance", [0.0, -1.0, float("nan")])
def test_a_tolerance_is_above_zero(tolerance: float) -> None:
    with pytest.raises(cp.ProbeError, match=r"tolerance is .*; give a number above 0"):
        cp.InfluenceMap(generator(), "layer").attribute(n_pairs=4, tolerance=tolerance)


def coverage(sample: np.ndarray, truth: float, tolerance: float | None, limit: int) -> tuple[float, float]:
    """Share of repetitions in which the truth is within two standard errors, and the mean number of pairs."""
    hits, used = [], []
    for draws in sample:
        accumulator = MapAccumulator(MapArrays.zeros(1, (1, 1), torch.device("cpu")))
        for pair, value in enumerate(draws[:limit]):
            accumulator.add(pair, [0], torch.full((1, 1, 1), float(value), dtype=torch.float64))
            if tolerance is not None and (pair + 1) % 16 == 0 and accumulator.relative_errors([0])[0] <= tolerance:
                break
        arrays = accumulator.finish()
        hits.append(abs(float(arrays.maps) - truth) <= 2 * float(arrays.standard_error))
        used.append(float(arrays.n_pairs))
    return float(np.mean(hits)), float(np.mean(used))


@pytest.mark.long
def test_error_bars_hold_what_they_promise_by_simulation() -> None:
    """Effects of a channel are heavy-tailed: log-normal with the spread measured on real maps.

    Two standard errors of a fixed number of pairs cover the truth 92 times in 100 or more. Stopping
    on an estimated error favours draws that happen to look precise; what that costs is bounded here.
    """
    rng = np.random.default_rng(0)
    sample = rng.lognormal(0.0, 0.8, size=(300, 400))
    truth = float(np.exp(0.32))
    fixed, _ = coverage(sample, truth, None, 128)
    stopped, used = coverage(sample, truth, 0.1, 400)
    assert fixed >= 0.92
    assert stopped >= 0.88
    assert 60 < used < 150, "(σ/μ/0.1)² is 90 pairs"
    # The check can fail: error bars three times too small would cover far less.
    wrong, _ = coverage(sample, truth + 0.3, None, 128)
    assert wrong < 0.7
