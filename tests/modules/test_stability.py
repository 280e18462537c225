"""Stability of modules: the literal procedure, and cases whose answer is known (conventions 12, 13)."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest
from sklearn.decomposition import NMF
from sklearn.metrics import adjusted_rand_score

import counterfactual_probe as cp
from support.planted import Array, planted, structureless
from support.twins import literal_bits, literal_nmf


def best_match(one: Any, two: Any, k: int) -> tuple[float, tuple[int, ...]]:
    """Every way to rename the labels of ``two``; the largest share of agreement."""
    return max(
        (float(np.mean([order[a] == b for a, b in zip(one, two, strict=True)])), order)
        for order in permutations(range(k))
    )


def cosine(one: Array, two: Array) -> float:
    return float(one @ two / np.linalg.norm(one) / np.linalg.norm(two))


def test_consistency_and_cosine_equal_the_procedure() -> None:
    maps = structureless(15, 12) + 0.7 * planted(3, 5, 12)[0]
    found = cp.ModuleFinder(seed=2).stability(maps, n_modules=[2, 3], repetitions=4)
    assert found.n_modules.tolist() == [2, 3]
    assert found.consistency.shape == found.cosine.shape == (2, 4)
    bits = literal_bits(maps, 3)
    for repetition in range(4):
        # The documented stream of subsets; the rest is the text of S003 §4.1.
        a, b, c = np.array_split(np.random.default_rng([2, repetition]).permutation(15), 3)
        for row, k in enumerate((2, 3)):
            one, _, h_one = literal_nmf(bits[[*b, *a]], k, seed=2)
            two, _, h_two = literal_nmf(bits[[*b, *c]], k, seed=2)
            share, order = best_match(one[:5], two[:5], k)
            assert found.consistency[row, repetition] == pytest.approx(share)
            ties = [
                other
                for other in permutations(range(k))
                if np.mean([other[x] == y for x, y in zip(one[:5], two[:5], strict=True)]) == share
            ]
            expected = [np.mean([cosine(h_one[i], h_two[other[i]]) for i in range(k)]) for other in ties]
            assert order in ties
            # The library factorises in single precision here, and NMF stops at a tolerance of its own.
            assert min(abs(found.cosine[row, repetition] - value) for value in expected) < 1e-4


@pytest.mark.parametrize("method", ["nmf", "kmeans"])
def test_planted_modules_are_stable_and_noise_is_not(method: Any) -> None:
    finder = cp.ModuleFinder(method=method)
    good = finder.stability(planted(3, 10)[0], n_modules=3, repetitions=5)
    assert good.consistency.tolist() == [[1.0] * 5]
    assert good.cosine.min() > 0.95
    bad = finder.stability(structureless(60), n_modules=3, repetitions=5)
    assert bad.consistency.mean() < 0.85
    assert bad.cosine.mean() < 0.9
    assert good.ari is None
    assert good.draw_agreement is None


def test_too_many_modules_are_less_stable_than_the_right_number() -> None:
    found = cp.ModuleFinder().stability(planted(3, 10, noise=0.3)[0], n_modules=[3, 6], repetitions=5)
    assert found.consistency[0].mean() > found.consistency[1].mean() + 0.1


def test_between_draws() -> None:
    """Two draws of the same modules agree; the same modules in another order of channels do not."""
    maps, truth = planted(3, 8, seed=1)
    second = maps + 0.05 * structureless(24, seed=9)
    shuffled = maps[np.random.default_rng(0).permutation(24)]
    finder = cp.ModuleFinder()
    same = finder.stability(maps, n_modules=[2, 3], repetitions=1, other=second)
    assert same.ari is not None
    assert same.draw_agreement is not None
    assert same.draw_cosine is not None
    assert (same.ari[1], same.draw_agreement[1]) == (1.0, 1.0)
    assert same.draw_cosine[1] > 0.95
    other = finder.stability(maps, n_modules=[2, 3], repetitions=1, other=shuffled)
    assert other.ari is not None
    assert other.ari[1] < 0.4
    assert adjusted_rand_score(truth, cp.ModuleFinder(n_modules=3).fit(maps).labels_) == 1


def test_ari_and_agreement_between_draws_equal_the_definition() -> None:
    one, two = structureless(20, 12, seed=3), structureless(20, 12, seed=4)
    two = 0.6 * one + 0.4 * two
    one[5], two[6] = 0.0, 0.0  # dead in either draw: compared in neither
    found = cp.ModuleFinder().stability(one, n_modules=[3], repetitions=1, other=two)
    alive = [i for i in range(20) if i not in (5, 6)]
    first, _, h_first = literal_nmf(literal_bits(one, 3)[alive], 3)
    second, _, h_second = literal_nmf(literal_bits(two, 3)[alive], 3)
    share, order = best_match(first, second, 3)
    assert found.ari is not None
    assert found.draw_agreement is not None
    assert found.draw_cosine is not None
    assert found.ari[0] == pytest.approx(adjusted_rand_score(first, second))
    assert found.draw_agreement[0] == pytest.approx(share)
    assert found.draw_cosine[0] == pytest.approx(np.mean([cosine(h_first[i], h_second[order[i]]) for i in range(3)]))
    assert found.ari[0] < 0.99


@pytest.mark.parametrize("method", ["nmf", "kmeans"])
def test_more_modules_than_different_maps(method: Any) -> None:
    """k-means would leave a cluster empty, and the mean of its maps would be NaN."""
    maps = np.repeat(planted(5, 1, noise=0.0)[0], 9, axis=0)
    with pytest.raises(cp.ProbeError, match="6 modules asked of 5 different maps; ask for at most 5"):
        cp.ModuleFinder(method=method).stability(maps, n_modules=6, repetitions=2)


def test_dead_channels_take_no_part() -> None:
    maps, _ = planted(3, 6)
    with_dead = np.concatenate([maps, np.zeros((9, 16, 16))])
    found = cp.ModuleFinder().stability(with_dead, n_modules=3, repetitions=6)
    assert found.consistency.min() == 1.0


def test_same_seed_same_subsets_and_seeds_differ() -> None:
    maps = structureless(24)
    runs = [cp.ModuleFinder(seed=seed).stability(maps, n_modules=[3], repetitions=5) for seed in (1, 1, 2)]
    assert np.array_equal(runs[0].consistency, runs[1].consistency)
    assert not np.array_equal(runs[0].consistency, runs[2].consistency)


def test_defaults_are_two_to_six_modules_and_twenty_repetitions() -> None:
    found = cp.ModuleFinder(method="nmf").stability(structureless(18, 8))
    assert found.n_modules.tolist() == [2, 3, 4, 5, 6]
    assert found.consistency.shape == (5, 20)
    assert found.provenance["method"] == "nmf"


def test_provenance_is_that_of_the_maps(plain: cp.GeneratorAdapter) -> None:
    maps = cp.InfluenceMap(plain, "main.2").attribute(n_pairs=2)
    found = cp.ModuleFinder(seed=5, window=3).stability(maps, n_modules=2, repetitions=1)
    assert found.provenance["maps"] == maps.provenance
    assert (found.provenance["seed"], found.provenance["window"]) == (5, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_modules": 13}, "13 modules asked of subsets of 12 live channels; ask for at most 12"),
        ({"n_modules": [2, 13]}, "13 modules asked of subsets of 12"),
        ({"repetitions": 0}, "repetitions 0; give at least one of each"),
        ({"n_modules": [0, 2]}, r"n_modules is 0; give an integer of at least 1"),
        ({"n_modules": []}, r"n_modules is \[\]; give one number or several"),
        ({"n_modules": 2.0}, r"n_modules is 2.0; give an integer of at least 1"),
        ({"n_modules": [2, "3"]}, r"n_modules is '3'; give an integer of at least 1"),
        ({"repetitions": 2.5}, r"repetitions is 2.5; give an integer of at least 0"),
        (
            {"other": structureless(17)},
            "the maps hold 18 unit sets and the other sample 17; give maps of the same ones",
        ),
        (
            {"other": np.zeros((18, 16, 16)), "n_modules": 2},
            "0 channels live in both samples and 2 modules asked for",
        ),
        ({"other": np.zeros((16, 16))}, r"influence maps have shape \(16, 16\)"),
    ],
)
def test_refusals(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(cp.ProbeError, match=message):
        cp.ModuleFinder().stability(planted(3, 6)[0], **{"n_modules": 2, **arguments})


def test_all_dead_maps() -> None:
    with pytest.raises(cp.ProbeError, match="every influence map is flat"):
        cp.ModuleFinder().stability(np.zeros((18, 8, 8)))


def test_draws_of_another_image_size() -> None:
    with pytest.raises(cp.ProbeError, match="size"):
        cp.ModuleFinder().stability(planted(3, 6)[0], n_modules=2, repetitions=1, other=structureless(18, 8))


def test_one_number_of_modules_may_be_numpys() -> None:
    number: Any = np.int64(2)
    cp.ModuleFinder().stability(planted(3, 6)[0], n_modules=number, repetitions=1)
    several: Any = np.array([2, 3])
    found = cp.ModuleFinder().stability(planted(3, 6)[0], n_modules=several, repetitions=1)
    assert found.n_modules.tolist() == [2, 3]


def test_the_literal_twin_is_scikit_learn() -> None:
    """Meta-check: with another start the twin's templates differ, so it does depend on its details."""
    bits = literal_bits(structureless(20, 12), 3)
    random = NMF(3, init="random", tol=1e-4, max_iter=1000, random_state=0).fit(bits).components_
    assert not np.allclose(literal_nmf(bits, 3)[2], random, atol=1e-3)
