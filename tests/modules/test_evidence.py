"""Evidence for modules: planted ones are apart, pieces of a continuum are not; formulas by hand."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

import counterfactual_probe as cp
from counterfactual_probe.modules.evidence.distances import noise_free_distances
from counterfactual_probe.modules.evidence.gaps import CONTROLS, gaps, line_gaps
from support.paths import benchmark

pytestmark = pytest.mark.filterwarnings("ignore:NMF stopped", "ignore::UserWarning:counterfactual_probe.modules")


@pytest.fixture(scope="module")
def toys() -> ModuleType:
    """The toys of the benchmark, which measures with 200 of each what these tests do with a few."""
    return benchmark("evidence")


@pytest.mark.parametrize("features", ["l2", "bits"])
def test_planted_modules_are_found(toys: ModuleType, features: str) -> None:
    found = [toys.found_in(toys.toy("three modules", seed), features) for seed in range(4)]
    assert found.count(3) >= 3
    assert set(found) <= {3, None}


@pytest.mark.parametrize(
    "name", ["at random in the plane", "at random on a line", "around a centre", "all at one place", "of random sizes"]
)
def test_nothing_is_found_in_a_continuum(toys: ModuleType, name: str) -> None:
    found = [toys.found_in(toys.toy(name, seed)) for seed in range(3)]
    assert found.count(None) >= 2  # 5 % level: two of three would be a fault


def test_a_continuum_is_reproducible_and_no_evidence(toys: ModuleType) -> None:
    maps = toys.toy("at random on a line", 0, pairs=512)
    chosen = cp.ModuleFinder.choose(maps, range(2, 5), repetitions=1, features="l2")
    assert chosen.expected_ari.max() > 0.8
    assert chosen.apart is None
    assert "continuum" in chosen.describe().warning
    planted = cp.ModuleFinder.choose(toys.toy("three modules", 0), range(2, 5), repetitions=1, features="l2")
    assert planted.apart == 3
    assert "continuum" not in planted.describe().warning
    assert [record["p_value"] <= 0.05 for record in planted.records()].count(True) >= 1


def test_gaps_by_hand() -> None:
    places = np.array([0.0, 1, 2, 3, 10, 11, 12])
    labels = np.array([0, 0, 0, 0, 1, 1, 1])
    distances = np.abs(places[:, None] - places)
    np.fill_diagonal(distances, np.inf)
    ratio, p_value = gaps(distances, labels, 2)
    assert ratio == pytest.approx([np.quantile([10, 9, 8, 7], 0.05), np.quantile([7, 8, 9], 0.05)])
    for k, n in enumerate((4, 3)):
        assert p_value[k] == (1 + sum(gap >= ratio[k] for gap in line_gaps(n))) / (1 + CONTROLS)
    assert p_value.max() < 0.2
    few, one = gaps(distances, np.array([0, 0, 0, 0, 0, 1, 1]), 2)
    assert np.isnan(few[1])
    assert one[1] == 1
    same, _ = gaps(np.where(np.eye(6) > 0, np.inf, np.kron(1 - np.eye(2), np.ones((3, 3)))), np.repeat([0, 1], 3), 2)
    assert same.tolist() == [np.inf, np.inf]


def test_controls_are_points_on_a_line() -> None:
    # The same in a slow way: n points beside a cut, and those beyond it.
    rng, n, slow = np.random.default_rng(0), 9, []
    for _ in range(4000):
        places = np.sort(rng.random(200))
        cut = int(rng.integers(50, 100))
        members, others = places[cut : cut + n], places[:cut]
        inside = cdist(members[:, None], members[:, None])
        np.fill_diagonal(inside, np.inf)
        across = cdist(members[:, None], others[:, None]).min(1)
        slow.append(np.quantile(across, 0.05) / np.quantile(inside.min(1), 0.9))
    for level in (0.25, 0.5, 0.9):
        assert np.quantile(line_gaps(n), level) == pytest.approx(np.quantile(slow, level), rel=0.12)


def test_distances_do_not_grow_with_noise() -> None:
    rng, side = np.random.default_rng(0), 40
    truth = np.repeat(rng.normal(size=(3, side)), 2, axis=0)  # two of each, so that some distances are 0
    expected = cdist(truth, truth)
    for pairs, noise in ((512, 2.0), (2048, 4.0)):
        blocks = torch.from_numpy(
            truth[:, None] * pairs / 32 + noise * (pairs / 32) ** 0.5 * rng.normal(size=(6, 32, side))
        )
        found = noise_free_distances(blocks, lambda sums, pairs=pairs: sums / pairs)
        plain = cdist(*[blocks.sum(1).numpy() / pairs] * 2)
        apart = expected > 0
        assert np.abs(found - expected)[apart].max() < 0.1 * expected[apart].min()
        nearest = ~apart & ~np.eye(6, dtype=bool)
        assert found[nearest].max() < plain[nearest].max()
        assert np.isinf(np.diag(found)).all()


def test_evidence_needs_blocks_and_outlives_confidence(toys: ModuleType, tmp_path: Path) -> None:
    maps = toys.toy("three modules", 1)
    finder = cp.ModuleFinder(3, features="l2").fit(maps)
    before = finder.evidence_
    finder.confidence_  # noqa: B018 - it lets go of the blocks
    after = finder.name_modules(["one", "two", "three"]).evidence_
    assert after.p_values.tolist() == before.p_values.tolist()
    assert after.names == ("one", "two", "three")
    assert after.apart == (after.p_value <= 0.05)
    loaded = cp.Evidence.load(after.save(tmp_path / "evidence"))
    assert loaded.gap.tolist() == after.gap.tolist()
    assert loaded.sentence == after.sentence
    with pytest.raises(cp.ProbeError, match="blocks=32"):
        _ = cp.ModuleFinder(3).fit(maps.maps).evidence_
    again = cp.ModuleFinder.load(finder.save(tmp_path / "modules"))
    assert again.evidence_.p_values.tolist() == before.p_values.tolist()
    unread = cp.ModuleFinder.load(cp.ModuleFinder(3, features="l2").fit(maps).save(tmp_path / "unread"))
    with pytest.raises(cp.ProbeError, match=r"before \.save"):
        _ = unread.evidence_


@pytest.mark.parametrize(
    ("p_values", "words"),
    [([0.01, 0.02], "parts, not pieces"), ([0.01, 0.3], "1 group stand apart: a"), ([0.3, 0.3], "is a choice")],
)
def test_sentences_follow_the_evidence(p_values: list[float], words: str) -> None:
    found = cp.Evidence(("a", "b"), np.array([5, 6]), np.array([2.0, np.nan]), np.array(p_values), {})
    assert words.replace("stand", "stands") in found.sentence
    assert (found.describe().warning == "") == found.apart
    _, ax = found.plot()
    assert len(ax.patches) == 2
