"""Binarised maps: strictly above the percentile, and of plateaus that reach it, the plateau."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import counterfactual_probe as cp
from counterfactual_probe.modules.features import above, binary_features


class Parts(nn.Module):
    """Channel k adds a constant to its part of the picture: halves, a corner each, and the last to all of it."""

    parts: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.channels, parts = nn.Identity(), torch.zeros(5, 1, 16, 16)
        parts[0, :, :, :8], parts[1, :, :, 8:], parts[2, :, :5, :5], parts[3, :, 11:, 11:], parts[4] = 1, 1, 1, 1, 1
        self.register_buffer("parts", parts)

    def forward(self, z: Tensor) -> Tensor:
        return (self.channels(z)[:, :, None, None, None] * self.parts).sum(1)


def maps_of_parts() -> cp.InfluenceMaps:
    gen = cp.wrap(Parts(), lambda n, rng: torch.rand(n, 5, generator=rng), image_range=(0, 5))
    return cp.InfluenceMap(gen, "channels").attribute(n_pairs=16)


def test_even_influence_on_more_than_a_quarter_of_the_image_is_not_dead() -> None:
    maps = maps_of_parts()
    maps.maps[4] = 0.5  # without the rounding of the others' sums
    finder = cp.ModuleFinder(4).fit(maps)
    assert sorted(finder.labels_[:4].tolist()) == [0, 1, 2, 3], "each part is a module of its own"
    assert finder.labels_[4] == -1, "the same everywhere: a flat map, which belongs to no part"
    halves = binary_features(maps.maps[:2].double().numpy(), window=1).reshape(2, 16, 16).astype(bool)
    assert (halves[0] == (np.arange(16) < 8)).all()
    assert (halves[1] == ~halves[0]).all()
    assert cp.ModuleFinder(2).fit(maps.maps[:2]).labels_.tolist() in ([0, 1], [1, 0])


def test_a_module_of_even_influence_has_a_region_of_its_own() -> None:
    """In its own region it acts, outside it does not: infinitely specific, which was NaN for want of a region."""
    gen = cp.wrap(Parts(), lambda n, rng: torch.rand(n, 5, generator=rng), image_range=(0, 5))
    influence = cp.InfluenceMap(gen, "channels")
    maps = influence.attribute(n_pairs=8)
    finder = cp.ModuleFinder(2, window=1).fit(dataclasses.replace(maps, maps=maps.maps[:2], units=maps.units[:2]))
    regions = above(finder.templates_.reshape(2, -1), 75.0)
    assert regions.sum(1).tolist() == [128, 128]
    assert not (regions[0] & regions[1]).any()


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 50.0, 75.0, 90.0]))
@settings(max_examples=50, deadline=None)
def test_where_anything_exceeds_the_percentile_it_is_exceeded_strictly(seed: int, percentile: float) -> None:
    """Negative control of the plateaus: for all other maps nothing has changed."""
    rows = np.random.default_rng(seed).random((3, 64))
    expected = rows > np.percentile(rows, percentile, axis=1, keepdims=True)
    assert (above(rows, percentile) == expected).all()


@pytest.mark.parametrize("size", [17, 32, 63])
def test_a_plateau_with_the_rounding_of_float32(size: int) -> None:
    rows = np.zeros((1, 64))
    rows[:, :size] = np.float32(0.1)
    rows[:, : size // 2] = np.nextafter(np.float32(0.1), np.float32(1))
    assert (above(rows, 75.0)[0] == (np.arange(64) < size)).all()


def test_a_plateau_below_the_maximum_stays_below() -> None:
    """Conventions 9, to the letter: ten pixels exceed the percentile, on which forty others lie."""
    rows = np.array([[1.0] * 10 + [0.5] * 40 + [0.0] * 50])
    assert above(rows, 75.0).sum() == 10
