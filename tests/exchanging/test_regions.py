"""Regions and random sets: where a share is large, and what is dealt."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

import counterfactual_probe as cp
from counterfactual_probe.exchanging.controls import KINDS, Pool
from counterfactual_probe.exchanging.regions import region


def test_a_region_is_where_the_share_is_large() -> None:
    of_all = np.array([1.0, 2.0, 4.0, 1.0, 3.0, 0.0])
    share = np.array([0.9, 1.0, 0.1, 0.0, 0.2, 0.0])
    assert region(share * of_all, of_all).tolist() == [True, True, False, False, False, False]
    assert not region(0.3 * of_all, of_all).any()  # nowhere larger than elsewhere
    assert not region(0 * of_all, of_all).any()
    assert not region(0 * of_all, 0 * of_all).any()


def test_pixels_that_hardly_change_hardly_count() -> None:
    rng = np.random.default_rng(0)
    of_all = np.r_[np.full(50, 1.0), np.full(50, 1e-6)]
    share = np.r_[rng.uniform(0, 0.2, 25), rng.uniform(0.8, 1, 25), rng.uniform(0, 1, 50)]
    found = region(share * of_all, of_all)
    assert (found[:50] == (share[:50] > 0.5)).all()


def pool(sizes: tuple[int, ...] = (4, 2), units: int = 12, seed: int = 0) -> Pool:
    rng = np.random.default_rng(seed)
    edges = np.cumsum((0, *sizes))
    modules = [
        cp.UnitSet({"a": tuple(range(start, stop)), "b": (k,)}) for k, (start, stop) in enumerate(pairwise(edges))
    ]
    numbers = {"a": np.arange(units), "b": np.array([0, 1, 5, 7])}
    return Pool(numbers, {layer: rng.exponential(size=len(some)) for layer, some in numbers.items()}, modules)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_dealt(kind: str) -> None:
    made = pool()
    deals = made.deals(300, kind, 0)  # type: ignore[arg-type]
    counts = np.zeros((2, 12))
    for group in deals:
        taken = [(layer, number) for units in group for layer, some in units.items() for number in some]
        assert len(taken) == len(set(taken))
        assert {number for layer, number in taken if layer == "b"} <= {0, 1, 5, 7}
        for k, units in enumerate(group):
            counts[k, list(units["a"])] += 1
    if kind == "equal size":
        assert all(
            [len(units[layer]) for units in group] == sizes
            for group in deals
            for layer, sizes in (("a", [4, 2]), ("b", [1, 1]))
        )
        assert np.abs(counts / 300 - np.array([[4 / 12], [2 / 12]])).max() < 0.1  # every unit as often
    else:
        wanted = [made.influence["a"][list(module["a"])].sum() for module in made.modules]
        found = [[made.influence["a"][list(units["a"])].sum() for units in group] for group in deals]
        np.testing.assert_allclose(np.mean(found, 0), wanted, rtol=0.2)
        twice = made.deals(300, "equal influence", 0, np.array([1.0, 2.0]))
        more = np.mean([[made.influence["a"][list(units["a"])].sum() for units in group] for group in twice], 0)
        assert more[1] > 1.5 * wanted[1]
    assert made.deals(3, kind, 0) == made.deals(3, kind, 0)  # type: ignore[arg-type]
    assert made.deals(3, kind, 0) != made.deals(3, kind, 1)  # type: ignore[arg-type]


def test_what_cannot_be_dealt() -> None:
    made = pool((1,), 2)
    made.require(7)
    with pytest.raises(cp.ProbeError, match=r"8 random sets are asked for and of 6 channels .* only 7 others"):
        made.require(8)
    few = Pool({"a": np.arange(4)}, {"a": np.array([1.0, 0, 0, 0])}, [cp.UnitSet({"a": (0,)}), cp.UnitSet({"a": (1,)})])
    assert [[units.size for units in group] for group in few.deals(2, "equal influence", 0)] == [[1, 1], [1, 1]]
