"""The benchmark of module discovery: its scores by hand, its toys, and methods that fail."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.cluster import DBSCAN, AgglomerativeClustering
from sklearn.metrics import adjusted_rand_score

import counterfactual_probe as cp
from support.figures import row_names
from support.paths import DOCS, benchmark, blocks

pytestmark = pytest.mark.filterwarnings("ignore:NMF stopped", "ignore::UserWarning:counterfactual_probe.modules")

decoders, leaderboard, methods, plantings, problem, run, scores, toys = (
    benchmark(f"modularity.{name}")
    for name in ("decoders", "leaderboard", "methods", "plantings", "problem", "run", "scores", "toys")
)
command = benchmark("modularity.__main__").main


# --- scores -----------------------------------------------------------------------------------------


def exchanged_images(pairs: int = 8, seed: int = 0) -> torch.Tensor:
    """(4, pairs, 1, 4, 4) of two factors: the left and the right half of an image."""
    base, source = torch.rand(2, pairs, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    sets = []
    for number in range(4):
        image = base.clone()
        for factor in range(2):
            if number >> factor & 1:
                image[..., 2 * factor : 2 * factor + 2] = source[..., 2 * factor : 2 * factor + 2]
        sets.append(image)
    return torch.stack(sets)


def test_an_exchange_of_factors_has_interchange_accuracy_1() -> None:
    exchanged = exchanged_images()
    accuracy, sets = scores.interchange(exchanged[[2, 1]], exchanged)
    assert accuracy.tolist() == [1, 1]
    assert sets.tolist() == [2, 1]


def test_exchanging_nothing_or_everything_has_interchange_accuracy_0() -> None:
    exchanged = exchanged_images()
    accuracy, _ = scores.interchange(exchanged[[0, 3]], exchanged)
    assert accuracy.tolist() == [0, 0]


def test_interchange_accuracy_is_measured_on_the_other_half_of_the_pairs() -> None:
    exchanged = exchanged_images()
    hybrids = torch.where((torch.arange(8) % 2 == 0).view(8, 1, 1, 1), exchanged[1], exchanged[2])[None]
    assert scores.interchange(hybrids, exchanged)[0].tolist() == [0]  # each half has another set
    slow = []
    noisy = exchanged[1:2] + 0.8 * torch.randn(exchanged[1:2].shape, generator=torch.Generator().manual_seed(1))
    for own, other in ((0, 1), (1, 0)):
        nearest = [
            min(range(4), key=lambda s, i=i: float(((noisy[0, i] - exchanged[s, i]) ** 2).sum())) for i in range(8)
        ]
        chosen = max((1, 2), key=nearest[own::2].count)
        slow.append(nearest[other::2].count(chosen) / 4)
    assert scores.interchange(noisy, exchanged)[0][0] == pytest.approx(np.mean(slow))
    assert 0 < np.mean(slow) < 1


def test_sets_of_factors_are_in_the_order_of_their_numbers() -> None:
    base, source = np.zeros((1, 6), np.int64), np.full((1, 6), 3)
    found = [mixed[0].tolist() for mixed in decoders.exchanges(base, source)]
    assert len(found) == 16
    assert found[0] == [0] * 6
    assert found[2] == [0, 3, 0, 0, 0, 0]
    assert decoders.factor_names(2) == ["wall hue"]
    assert found[9] == [3, 0, 0, 3, 3, 3]
    assert decoders.factor_names(9) == ["floor hue", "object"]


def test_templates_are_matched() -> None:
    rng = np.random.default_rng(0)
    one = rng.normal(size=(3, 4, 4))
    assert scores.matched_correlation(one, 2 * one[[2, 0, 1]] + 1) == pytest.approx(1)
    assert scores.matched_correlation(one, one[:2]) == pytest.approx(2 / 3)  # one is left over
    assert scores.matched_correlation(one[:2], one) == pytest.approx(2 / 3)
    assert scores.matched_correlation(one, rng.normal(size=(3, 4, 4))) < 0.6
    other = rng.normal(size=(3, 4, 4))
    table = np.corrcoef(one.reshape(3, -1), other.reshape(3, -1))[:3, 3:]
    best = max(
        sum(table[i, j] for i, j in enumerate(order))
        for order in ([0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0])
    )
    assert scores.matched_correlation(one, other) == pytest.approx(best / 3)


# --- toys -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def settings() -> Any:
    return run.Settings(toys=1, kinds=("three modules",), pairs=16, models=(), exchanged=0)


@pytest.mark.parametrize("name", ["three modules", "three modules, latents of all of them", "at random on a line"])
def test_channels_act_where_they_are_planted(name: str) -> None:
    planted = plantings.planted(name, 1)[0]
    generator, modules = toys.toy_generator(name, 1)
    maps = cp.InfluenceMap(generator, "hidden").attribute(n_pairs=64).maps.double().numpy()
    own = [np.corrcoef(one.ravel(), pattern.ravel())[0, 1] for one, pattern in zip(maps, planted.patterns, strict=True)]
    others = [
        np.corrcoef(one.ravel(), pattern.ravel())[0, 1]
        for one, pattern in zip(maps, planted.patterns[::-1], strict=True)
    ]
    assert min(own) > 0.8
    assert np.mean(others) < 0.7
    assert (modules is None) == (planted.modules is None) == (plantings.TOYS[name].n_modules is None)


def test_every_kind_of_toy_can_be_made() -> None:
    for name in toys.toy_names():
        generator, modules = toys.toy_generator(name, 0)
        assert generator.layers["hidden"].channels == plantings.CHANNELS
        if modules is not None:
            assert len(np.unique(modules)) == (3 if name == toys.MODEL_1 else plantings.TOYS[name].n_modules)
            assert len(modules) == plantings.CHANNELS


def test_latents_of_all_modules_tell_nothing_of_them() -> None:
    modules = plantings.planted("three modules, latents of all of them", 0)[0].modules
    drivers = toys.drivers_of(modules, "all", np.random.default_rng(0))
    assert abs(adjusted_rand_score(modules, drivers)) < 0.1
    assert toys.drivers_of(modules, "module", np.random.default_rng(0)) is modules
    made = run.toy_problem("three modules, latents of all of them", 0, 16)
    found = {name: run.fitted(methods.METHODS[name], made.samples[0], 3, 0)[1] for name in methods.METHODS}
    assert adjusted_rand_score(modules, found["l2, NMF"]) == 1
    assert adjusted_rand_score(modules, found["correlation of activations"]) < 0.2


# --- methods ----------------------------------------------------------------------------------------


class Raises(ClusterMixin, BaseEstimator):
    def fit(self, maps: Any) -> Any:
        raise RuntimeError("no such thing\nand more")


class TooShort(ClusterMixin, BaseEstimator):
    def fit(self, maps: Any) -> Any:
        self.labels_ = np.zeros(len(maps) - 1, np.int64)
        return self


class OfFloats(ClusterMixin, BaseEstimator):
    def fit(self, maps: Any) -> Any:
        self.labels_ = np.linspace(0, 1, len(maps))
        return self


class Nothing(ClusterMixin, BaseEstimator):
    def fit(self, maps: Any) -> Any:
        self.labels_ = np.full(len(maps), -1)
        return self


class Unsure(ClusterMixin, BaseEstimator):
    """Says things of itself, and raises when asked for one of them."""

    sees = "influence"

    def fit(self, influence: cp.InfluenceMaps) -> Any:
        self.labels_ = np.arange(len(influence)) % 2
        return self

    @property
    def expected_ari_(self) -> float:
        raise cp.ProbeError("never measured")


def test_methods_that_fail_are_named_and_the_others_go_on(settings: Any) -> None:
    given = {kind.__name__: kind() for kind in (Raises, TooShort, OfFloats, Nothing, Unsure, methods.Random)}
    rows = run.run(given, settings)
    failed = {row["method"]: row["failed"] for row in rows if "failed" in row}
    assert failed == {
        "Raises": "RuntimeError: no such thing",
        "TooShort": "ValueError: labels of shape (47,) were given for 48 channels",
        "OfFloats": "ValueError: labels are float64; they must be integers",
        "Nothing": "ValueError: no channel is in a module",
        "Unsure": "ProbeError: never measured",
    }
    result = {"leaderboard": leaderboard.leaderboard(rows)}
    assert result["leaderboard"][0]["method"] == "Random"
    table = leaderboard.tables(result)["leaderboard"]
    assert "| 1 × RuntimeError: no such thing |" in table
    assert len(table.splitlines()) == 2 + len(given)
    _, ax = leaderboard.heat_table(result["leaderboard"])
    assert row_names(ax) == list(map(str, (entry["method"] for entry in result["leaderboard"])))


def test_rows_that_are_kept_are_not_measured_again(settings: Any, tmp_path: Path) -> None:
    class Counts(methods.Random):
        fits = 0

        def fit(self, maps: Any) -> Any:
            type(self).fits += 1
            return super().fit(maps)

    kept = tmp_path / "new" / "rows.jsonl"
    first = run.run({"counts": Counts(), "raises": Raises()}, settings, kept)
    assert Counts.fits == 2  # of two samples
    again = run.run({"counts": Counts(), "raises": methods.Random()}, settings, kept)
    assert Counts.fits == 2
    assert again[0] == first[0]
    assert "failed" in first[1]
    assert "failed" not in again[1]
    run.run({"counts": Counts()}, dataclasses.replace(settings, pairs=18), kept)
    assert Counts.fits == 4


def test_any_clusterer_of_scikit_learn_is_a_method(settings: Any) -> None:
    given = {"ward": AgglomerativeClustering(), "density": DBSCAN(eps=0.5)}
    ward, density = run.run(given, settings)
    assert ward["truth"] == 1
    assert len(ward["sizes"]) == 3  # it was told so, and has 2 by default
    assert "failed" not in density
    for row in (ward, density):
        assert row["agreement"] <= 1
        assert row["seconds"] >= 0
        assert {"apart", "expected_ari", "iou"}.isdisjoint(row)


def test_a_single_module_does_not_agree_with_itself(settings: Any) -> None:
    class One(Nothing):
        def fit(self, maps: Any) -> Any:
            self.labels_ = np.zeros(len(maps), np.int64)
            return self

    (row,) = run.run({"one": One()}, settings)
    assert row["ari"] == 1
    assert row["agreement"] == 0
    assert row["correlation"] == 0


def test_means_and_their_errors() -> None:
    rows = [{"seed": seed, "truth": value} for seed, value in ((0, 0.0), (0, 1.0), (1, 1.0), (2, 0.0))]
    mean, error = leaderboard.mean_over(rows, "truth", "seed")
    assert mean == pytest.approx(0.5)
    assert error == pytest.approx(np.std([0.5, 1, 0], ddof=1) / 3**0.5)
    assert leaderboard.mean_over(rows[:2], "truth", "seed") == (0.5, 0)


# --- the command ------------------------------------------------------------------------------------


def test_the_command_takes_the_method_of_the_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("python", DOCS / "benchmark.md")
    assert 5 <= len([line for line in code.splitlines() if line.strip()]) <= 20
    Path("mine.py").write_text(code)
    page = Path("page.md")
    page.write_text("<!-- measured: leaderboard -->\n<!-- end -->\n")
    Path("images").mkdir()
    given = ["--short", "--models", "--only", "random", "--method", "mine.py:Mine", "--method", "sklearn.cluster:Birch"]
    command([*given, "--out", "found.json", "--rows", "rows.jsonl", "--page", "page.md"])
    found = json.loads(Path("found.json").read_text())
    assert {entry["method"] for entry in found["leaderboard"]} == {"random", "Mine", "Birch"}
    assert all(entry["failed"] == {} and entry["problems"] == 3 for entry in found["leaderboard"])
    rows = [json.loads(line) for line in Path("rows.jsonl").read_text().splitlines()]
    assert [row["problem"] for row in rows[::3]] == list(run.SHORT.kinds)
    assert sum(row.get("truth", 0) for row in rows if row["method"] == "Mine") / 2 == pytest.approx(
        found["leaderboard"][0]["truth"][0]
    )
    assert found["leaderboard"][0]["truth"][0] > 0.9
    assert found["leaderboard"][-1]["truth"][0] < 0.2
    table = leaderboard.tables(found)["leaderboard"]
    assert table in capsys.readouterr().out
    assert table in page.read_text()
    assert Path("images/benchmark.svg").stat().st_size > 1000
    page.write_text("<!-- measured: leaderboard -->\n<!-- end -->\n")
    command(["--out", "found.json", "--page", "page.md"])  # from the file, and nothing runs
    assert table in page.read_text()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--method", "mine"], "--method is 'mine'; give path.py:Class or package.module:Class"),
        (["--method", "mine.py:Mine"], "mine.py is no file of Python; give path.py:Class"),
        (["--method", "sklearn.cluster:Kmeans"], "sklearn.cluster has no class Kmeans"),
        (["--only", "l2"], "no method is called 'l2'; there are bits, NMF; "),
    ],
)
def test_methods_that_are_not_there_are_refused(given: list[str], words: str) -> None:
    with pytest.raises(SystemExit, match=f"^{words}".replace("(", r"\(")):
        command([*given, "--short"])


@pytest.mark.long
def test_the_short_form_runs_every_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    command(["--short", "--out", "found.json"])
    found = json.loads(Path("found.json").read_text())
    best, *_, worst = found["leaderboard"]
    assert best["truth"][0] == 1
    assert worst["method"] == run.IN_PLACE  # of no method, and known of decoders alone
    assert set(worst) == {"method", "problems", "failed", "interchange", "interchange_of"}
    for entry in found["leaderboard"][:-1]:
        assert entry["planted"]["separation"] == pytest.approx(
            entry["planted"]["cause"] + entry["planted"]["isolation"] - 1
        )
        assert 0 <= entry["interchange"][0] <= 1
        assert 0 < entry["iou"][0] < 1
        assert entry["failed"] == {}
