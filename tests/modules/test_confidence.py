"""How sure modules are: calibrated on maps whose noise and truth are known, and said in plain words."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score

import counterfactual_probe as cp
from counterfactual_probe.modules.clustering import factorising, match_labels, variance_explained
from counterfactual_probe.modules.confidence import (
    ExpectedDisagreement,
    measure_confidence,
    measure_together,
    pairs_for,
)
from counterfactual_probe.modules.features import MapFeatures, unit_features
from support.planted import Array
from support.toys import PLAIN

BLOCKS, SIDE, EACH, K = 32, 12, 40, 3


def noisy_draw(seed: int, pairs: int, noise: float, kind: str) -> cp.InfluenceMaps:
    """Maps of channels between three stripes, some of one stripe and some of two, with heavy-tailed pairs."""
    world = np.random.default_rng(0)
    stripes = np.zeros((K, SIDE, SIDE))
    for k in range(K):
        stripes[k, :, 4 * k : 4 * k + 4] = 1
    mixture = world.dirichlet([0.35] * K, size=K * EACH)  # many channels of one stripe, some torn between two
    mean = np.einsum("ck,khw->chw", mixture, stripes)
    rng = np.random.default_rng([1, seed])
    blocks = np.zeros((len(mean), BLOCKS, SIDE, SIDE))
    for pair in range(pairs):
        size = rng.lognormal(0, 0.5, (len(mean), 1, 1))
        # Smooth noise: a pair moves the weights of the stripes as well as single pixels.
        moved = np.einsum("ck,khw->chw", rng.exponential(noise, (len(mean), K)), stripes)
        one = size * (mean + moved + 0.2 * rng.random(mean.shape))
        blocks[:, pair % BLOCKS] += one / np.linalg.norm(one, axis=(1, 2), keepdims=True) if kind == "l2" else one
    sums = torch.from_numpy(blocks).float()
    maps = sums.sum(1) / pairs
    many = torch.full((len(mean),), pairs)
    units = tuple(cp.UnitSet({"layer": (c,)}) for c in range(len(mean)))
    other = torch.zeros(len(mean))
    return cp.InfluenceMaps(
        maps, torch.zeros_like(maps), other, other, many, torch.zeros_like(many), units,
        {"n_pairs": pairs, "generator": "made"}, normalised=maps, block_sums=sums, normalised_block_sums=sums,
    )  # fmt: skip


pytestmark = pytest.mark.filterwarnings("ignore::counterfactual_probe.modules.confidence.ExpectedDisagreement")


def fitted(maps: cp.InfluenceMaps, kind: Any) -> cp.ModuleFinder:
    return cp.ModuleFinder(K, features=kind).fit(maps)


# --- calibration ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "noise"),
    [
        ("bits", 0.3),
        ("l2", 0.7),
        pytest.param("bits", 0.7, marks=pytest.mark.long),
        pytest.param("l2", 0.3, marks=pytest.mark.long),
    ],
)
def test_confidence_says_how_often_another_draw_agrees(kind: str, noise: float) -> None:
    """One finder's confidence against what its label really does in other draws of the same world."""
    finders = [fitted(noisy_draw(seed, 64, noise, kind), kind) for seed in range(8)]
    sure, unsure, promised, true, expected, coverage = [], [], [], [], [], []
    for finder in finders[:4]:
        expected.append(finder.expected_ari_)
        coverage.append((finder.confidence_ >= 0.9).mean())
        for other in finders:
            if other is finder:
                continue
            order = match_labels(finder.labels_, other.labels_, K)
            same = finder.labels_ == np.argsort(order)[other.labels_]
            sure += same[finder.confidence_ >= 0.9].tolist()
            unsure += same[finder.confidence_ < 0.7].tolist()
            promised.append(finder.confidence_.mean() - same.mean())
            true.append(adjusted_rand_score(finder.labels_, other.labels_))
    assert np.mean(sure) >= 0.95
    assert np.mean(unsure) < np.mean(sure) - 0.15, "the unsure must be worse for confidence to mean anything"
    assert abs(np.mean(promised)) < 0.04
    assert abs(np.mean(expected) - np.mean(true)) < 0.05
    assert 0.2 < np.mean(coverage) < 0.99


def test_resamples_of_all_blocks_would_promise_too_much() -> None:
    """The control of the rule of half: more blocks a resample look surer than another draw is."""
    maps = noisy_draw(0, 64, 0.7, "bits")
    finder = fitted(maps, "bits")
    assert maps.block_sums is not None
    doubled = torch.cat([maps.block_sums, maps.block_sums], 1)  # half of twice the blocks: as many as there are
    with factorising():
        half, whole = (
            measure_confidence(blocks, [(K, finder.labels_)], MapFeatures(), method="nmf", seed=0)[0]
            for blocks in (maps.block_sums, doubled)
        )
    assert whole.ari.mean() > half.ari.mean() + 0.02


@pytest.mark.parametrize("kind", ["bits", pytest.param("l2", marks=pytest.mark.long)])
def test_finders_measured_together_are_those_measured_alone(kind: Any) -> None:
    maps, other = noisy_draw(0, 64, 0.7, kind), noisy_draw(1, 64, 0.7, kind)
    made = {"a": (2, maps, 0), "b": (3, maps, 0), "c": (4, maps, 0), "other": (3, other, 0), "seed": (3, maps, 1)}
    together, alone = (
        [cp.ModuleFinder(k, features=kind, seed=seed).fit(given) for k, given, seed in made.values()] for _ in range(2)
    )
    measure_together(together)
    for one, two in zip(together, alone, strict=True):
        np.testing.assert_array_equal(one.confidence_, two.confidence_)
        assert one.expected_ari_ == two.expected_ari_
    assert len({finder.expected_ari_ for finder in together}) == len(made)


# --- what is said -----------------------------------------------------------------------------------------------


def test_unsure_modules_are_told_with_the_pairs_that_would_help() -> None:
    finder = fitted(noisy_draw(0, 32, 6.0, "bits"), "bits")
    with pytest.warns(ExpectedDisagreement, match=r"another sample of 32 pairs .* take about [\d,]+ pairs") as told:
        finder.confidence_  # noqa: B018
    assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert finder.expected_ari_ < 0.8, "told once"


def test_sure_modules_are_told_nothing() -> None:
    finder = fitted(noisy_draw(0, 512, 0.05, "l2"), "l2")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert finder.expected_ari_ > 0.8


def test_pairs_that_would_help() -> None:
    assert pairs_for(64, 0.9) == 64
    assert pairs_for(64, 0.6) == 512  # half the disagreement: 2 ** 2.5 = 5.7 times the pairs
    assert pairs_for(64, 0.2) > pairs_for(64, 0.6)


def test_assigned_keeps_the_sure_channels_alone() -> None:
    finder = fitted(noisy_draw(0, 128, 1.0, "bits"), "bits")
    sure = finder.confidence_ >= 0.9
    found = finder.assigned(0.9)
    assert 0 < sure.sum() < len(sure)
    assert (found.labels == np.where(sure, finder.labels_, -1)).all()
    for k, units in enumerate(found.modules):
        assert isinstance(units, cp.UnitSet)
        assert list(units.get("layer", ())) == np.flatnonzero(sure & (finder.labels_ == k)).tolist()
    assert (finder.assigned(0.0).labels == finder.labels_).all()
    with pytest.raises(
        cp.ProbeError, match=r"no channel has a confidence of 1\.1 or more, and the largest is 1\.00; make maps of"
    ):
        finder.assigned(1.1)
    with pytest.raises(cp.ProbeError, match=r"confidence is '0\.9'; give a number"):
        finder.assigned("0.9")  # type: ignore[arg-type]


def test_advice_counts_the_pairs_that_were_seen() -> None:
    maps = noisy_draw(0, 64, 3.0, "bits")
    maps.n_pairs[: 2 * EACH] = 32  # a tolerance stopped most channels there
    finder = fitted(maps, "bits")
    with pytest.warns(ExpectedDisagreement, match="another sample of 32 pairs is expected"):
        assert finder.expected_ari_ < 0.8


def test_a_dead_channel_has_no_confidence() -> None:
    maps = noisy_draw(0, 64, 0.5, "bits")
    assert maps.block_sums is not None
    maps.maps[3], maps.block_sums[3] = 0, 0
    finder = fitted(maps, "bits")
    assert finder.labels_[3] == -1
    assert np.isnan(finder.confidence_[3])
    assert np.isfinite(np.delete(finder.confidence_, 3)).all()
    assert finder.assigned(0.5).labels[3] == -1


def test_without_blocks_there_is_no_confidence(plain: cp.GeneratorAdapter) -> None:
    maps = cp.InfluenceMap(plain, PLAIN.layer).attribute(n_pairs=4)
    for finder in (cp.ModuleFinder(2).fit(maps), cp.ModuleFinder(2).fit(maps.maps.numpy())):
        with pytest.raises(cp.ProbeError, match=r"attribute\(\.\.\., blocks=32\)"):
            finder.confidence_  # noqa: B018
    with pytest.raises(cp.ProbeError, match=r"fit it first"):
        cp.ModuleFinder(2).confidence_  # noqa: B018


def test_confidence_is_saved_if_it_was_asked_for(tmp_path: Path) -> None:
    maps = noisy_draw(0, 64, 0.5, "bits")
    finder = fitted(maps, "bits")
    silent = cp.ModuleFinder.load(finder.save(tmp_path / "silent"))
    with pytest.raises(cp.ProbeError, match=r"read \.confidence_ before \.save\(\)"):
        silent.confidence_  # noqa: B018
    kept = finder.confidence_
    loaded = cp.ModuleFinder.load(finder.save(tmp_path / "finder"))
    assert (loaded.confidence_ == kept).all()
    assert loaded.expected_ari_ == finder.expected_ari_
    assert loaded.assigned(0.9).modules == finder.assigned(0.9).modules
    assert loaded.variance_explained_ == finder.variance_explained_


def test_the_same_seed_gives_the_same_confidence() -> None:
    one, two = (fitted(noisy_draw(0, 32, 1.0, "bits"), "bits") for _ in range(2))
    assert (one.confidence_ == two.confidence_).all()


# --- the reproducible variant -------------------------------------------------------------------------------------


def literal_unit_features(maps: Array) -> Array:
    rows = []
    for values in maps:
        height, width = values.shape
        smooth = np.zeros_like(values)
        for i in range(height):
            for j in range(width):
                smooth[i, j] = values[max(0, i - 1) : i + 2, max(0, j - 1) : j + 2].mean()
        small = np.array(
            [[smooth[i : i + 2, j : j + 2].mean() for j in range(0, width, 2)] for i in range(0, height, 2)]
        )
        rows.append(small.ravel() / np.linalg.norm(small))
    return np.array(rows)


def test_unit_features_as_written_out() -> None:
    maps = np.random.default_rng(0).random((4, 6, 8))
    np.testing.assert_allclose(unit_features(maps), literal_unit_features(maps), rtol=0, atol=1e-12)
    assert unit_features(maps[:, :5]).shape == (4, 40), "an odd side is left as it is"
    assert (unit_features(np.zeros((1, 4, 4))) == 0).all()


def test_templates_of_unit_features_are_images_of_their_norm() -> None:
    finder = fitted(noisy_draw(0, 64, 0.2, "l2"), "l2")
    assert finder.templates_.shape == (K, SIDE, SIDE)
    np.testing.assert_allclose(np.linalg.norm(finder.templates_, axis=(1, 2)), 1, atol=1e-6)


def test_l2_needs_pair_normalised_maps_and_bits_are_the_default(plain: cp.GeneratorAdapter) -> None:
    maps = cp.InfluenceMap(plain, PLAIN.layer).attribute(n_pairs=4)
    with pytest.raises(cp.ProbeError, match=r"normalise='pair'"):
        cp.ModuleFinder(2, features="l2").fit(maps)
    with pytest.raises(cp.ProbeError, match=r"features is 'pixels'; give one of 'bits', 'l2'"):
        cp.ModuleFinder(2, features="pixels")  # type: ignore[arg-type]
    assert cp.ModuleFinder().features == "bits"
    both = cp.InfluenceMap(plain, PLAIN.layer).attribute(n_pairs=4, normalise="pair", blocks=2)
    assert (cp.ModuleFinder(2).fit(both).labels_ == cp.ModuleFinder(2).fit(maps).labels_).all()


# --- how many, how good, until when -------------------------------------------------------------------------------


def test_variance_explained_by_hand() -> None:
    rows, labels = np.array([[0.0], [2.0], [10.0], [12.0]]), np.array([0, 0, 1, 1])
    assert variance_explained(rows, labels) == pytest.approx(1 - 4 / 104)
    assert variance_explained(rows, np.arange(4)) == 1
    assert variance_explained(rows, np.zeros(4, dtype=int)) == pytest.approx(0)


@pytest.mark.filterwarnings("ignore:NMF stopped")
def test_choosing_the_number_of_modules(tmp_path: Path) -> None:
    maps = noisy_draw(0, 256, 0.05, "l2")
    found = cp.ModuleFinder.choose(maps, range(2, 6), repetitions=3, features="l2")
    assert found.consistency.shape == (4, 3)
    assert found.variance_explained[1] > found.variance_explained[0] + 0.1, "there are three stripes"
    assert found.expected_ari[1] == cp.ModuleFinder(3, features="l2").fit(maps).expected_ari_
    assert found.suggested >= 3
    loaded = cp.Selection.load(found.save(tmp_path / "selection"))
    assert loaded.suggested == found.suggested
    _, ax = found.plot()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "expected ARI of another sample", "variance explained", "consistency of subsets"
    ]  # fmt: skip
    with pytest.raises(cp.ProbeError, match=r"n_modules is \[\]; give one number or several"):
        cp.ModuleFinder.choose(maps, [])
    with pytest.raises(cp.ProbeError, match=r"81 modules asked of subsets of 80 live channels; ask for at most 80$"):
        cp.ModuleFinder(features="l2").stability(maps, n_modules=81)


def test_quality_has_enough_controls_for_its_p_values(plain: cp.GeneratorAdapter) -> None:
    influence = cp.InfluenceMap(plain, PLAIN.layer)
    finder = cp.ModuleFinder(2).fit(influence.attribute(n_pairs=16, seed=0))
    found = finder.quality(influence, n_pairs=2)
    assert found.random.shape[1] == 199
    assert (found.p_value >= 1 / 200).all()
    assert "p" in repr(found).splitlines()[1].split()


def test_quality_is_that_of_maps_of_the_modules(plain: cp.GeneratorAdapter) -> None:
    influence = cp.InfluenceMap(plain, PLAIN.layer)
    finder = cp.ModuleFinder(2).fit(influence.attribute(n_pairs=16, seed=0))
    found = finder.quality(influence, n_pairs=8, controls=3, seed=7)
    kept = [k for k, units in enumerate(finder.unit_sets()) if units.size]
    maps = influence.attribute(n_pairs=8, seed=7, units=[finder.unit_sets()[k] for k in kept]).maps.double().numpy()
    for place, k in enumerate(kept):
        inside = finder.templates_[k] > np.percentile(finder.templates_[k], 75)
        expected = maps[place][inside].mean() / maps[place][~inside].mean()
        assert found.specificity[place] == pytest.approx(expected, rel=1e-4)
    assert found.random.shape == (len(kept), 3)
    assert ((found.above_random >= 0) & (found.above_random <= 1)).all()
    np.testing.assert_allclose(found.p_value, (1 + (found.random >= found.specificity[:, None]).sum(1)) / 4)
    with pytest.raises(cp.ProbeError, match="there is only one module, so none can be compared"):
        cp.ModuleFinder(1).fit(influence.attribute(n_pairs=4)).quality(influence, n_pairs=4)


@pytest.mark.filterwarnings("ignore:NMF stopped")
def test_fit_until_stops_when_sure_or_at_the_limit(plain: cp.GeneratorAdapter) -> None:
    influence = cp.InfluenceMap(plain, PLAIN.layer)
    finder = cp.ModuleFinder(2, features="l2").fit_until(influence, expected_ari=1e-9, max_pairs=64, blocks=4)
    assert finder.maps_.provenance["n_pairs"] == 8
    assert finder.stopped_.startswith("8 pairs were enough: expected ARI")
    never = cp.ModuleFinder(2).fit_until(influence, expected_ari=1.0, max_pairs=32, blocks=4, seed=3)
    if never.expected_ari_ < 1:
        assert never.maps_.provenance["n_pairs"] == 32
        assert never.stopped_.startswith("the limit of 32 pairs was reached: expected ARI")
        assert never.stopped_.endswith("short of 1")
    again = cp.ModuleFinder(2).fit(never.maps_)
    assert (again.labels_ == never.labels_).all()
    for wrong in (0, "0.9"):
        with pytest.raises(cp.ProbeError, match=f"expected_ari is {wrong!r}; give a number above 0, up to 1"):
            cp.ModuleFinder(2).fit_until(influence, expected_ari=wrong)  # type: ignore[arg-type]
    with pytest.raises(cp.ProbeError, match=r"influence is a InfluenceMaps; give an InfluenceMap\(generator, layer\)"):
        cp.ModuleFinder(2).fit_until(never.maps_)  # type: ignore[arg-type]
    with pytest.raises(cp.ProbeError, match="n_pairs is given and pairs are sampled here; leave it out"):
        cp.ModuleFinder(2).fit_until(influence, n_pairs=8)


@pytest.mark.filterwarnings("ignore:NMF stopped")
@pytest.mark.parametrize(
    "kind", ["bits", pytest.param("l2", marks=pytest.mark.long), pytest.param("pca", marks=pytest.mark.long)]
)
def test_fit_until_goes_on_after_a_kill(
    plain: cp.GeneratorAdapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    asked: dict[str, Any] = {"expected_ari": 1.0, "max_pairs": 32, "blocks": 4}
    asked |= {"components": 3} if kind == "pca" else {}
    influence, finder = cp.InfluenceMap(plain, PLAIN.layer), cp.ModuleFinder(2, features=kind)
    whole = finder.fit_until(influence, **asked).maps_
    file, rounds = tmp_path / "progress", []
    attribute = cp.InfluenceMap.attribute

    def killed(*arguments: Any, **options: Any) -> cp.InfluenceMaps:
        if len(rounds) == 1:
            raise KeyboardInterrupt
        rounds.append(options["checkpoint"])
        return attribute(*arguments, **options)

    assert whole.provenance["n_pairs"] > 8, "were the first round enough, nothing would go on"
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(cp.InfluenceMap, "attribute", killed)
        finder.fit_until(influence, checkpoint=file, **asked)
    assert [path.name for path in tmp_path.iterdir()] == ["progress.8"]
    after = finder.fit_until(influence, checkpoint=file, **asked).maps_
    assert {path.name for path in tmp_path.iterdir()} >= {"progress.8", "progress.16"}

    def refused(*_: Any, **__: Any) -> None:
        raise AssertionError("it was run again")

    monkeypatch.setattr("counterfactual_probe.influence.estimate.Estimate.advance", refused)
    again = finder.fit_until(influence, checkpoint=file, **asked).maps_
    for maps in (after, again):
        assert torch.equal(maps.maps, whole.maps)
        assert maps.provenance["n_pairs"] == whole.provenance["n_pairs"]
