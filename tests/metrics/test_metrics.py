"""Disentanglement metrics: literal twins in float64, codes whose scores are known, and input that does not fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from math import log
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.svm import LinearSVC

import counterfactual_probe as cp
from counterfactual_probe import metrics
from counterfactual_probe.generator.latents import stream_seed
from counterfactual_probe.metrics.table import FITS
from support.analyses.factors import FACTORS, QUICK, SIZES, TEST, codes_of, drawn, noise

ALL = [*QUICK, metrics.dci]


def score(metric: Callable[..., metrics.Score], kind: str) -> float:
    return metric(codes_of(kind, FACTORS), FACTORS, test=(codes_of(kind, TEST), TEST)).score


# --- literal twins --------------------------------------------------------------------------------


def literal_bins(column: np.ndarray) -> list[int]:
    low, high = min(column), max(column)
    if low == high:
        return [10] * len(column)
    width = (high - low) / 20
    return [min(int(np.floor((value - low) / width + 1e-9)), 19) for value in column]


def literal_information(a: list[int], b: list[int]) -> float:
    n, joint, one, two = len(a), Counter(zip(a, b, strict=True)), Counter(a), Counter(b)
    return sum(k / n * log(k * n / (one[x] * two[y])) for (x, y), k in joint.items())


def literal_matrix(codes: np.ndarray, factors: np.ndarray) -> np.ndarray:
    return np.array(
        [[literal_information(literal_bins(code), list(factor)) for factor in factors.T] for code in codes.T]
    )


@pytest.fixture(params=["noisy", "rotated", "random", "redundant", "dead"])
def codes(request: pytest.FixtureRequest) -> np.ndarray:
    return codes_of(request.param, FACTORS)


def test_mig_is_the_literal_one(codes: np.ndarray) -> None:
    found = metrics.mig(codes, FACTORS)
    matrix = literal_matrix(codes, FACTORS)
    assert np.abs(found.matrix - matrix).max() < 1e-9
    gaps = []
    for j, factor in enumerate(FACTORS.T):
        first, second = sorted(matrix[:, j], reverse=True)[:2]
        gaps.append((first - second) / -sum(k / 600 * log(k / 600) for k in Counter(factor).values()))
    assert found.score == pytest.approx(np.mean(gaps), abs=1e-9)
    assert np.allclose(found.gaps, gaps, atol=1e-9)


def test_the_largest_code_shares_the_last_bin() -> None:
    """Another bin for it, as from all 21 edges, would give other information."""
    column = np.concatenate([np.linspace(0, 1, 599), [1.0]])
    matrix = metrics.mig(np.stack([column, column], 1), FACTORS).matrix
    assert max(literal_bins(column)) == 19
    assert np.allclose(matrix[0], [literal_information(literal_bins(column), list(f)) for f in FACTORS.T], atol=1e-9)
    other = np.digitize(column, np.histogram(column, 20)[1])
    assert abs(matrix[0, 0] - literal_information(list(other), list(FACTORS[:, 0]))) > 1e-6


def test_modularity_is_the_literal_one(codes: np.ndarray) -> None:
    found = metrics.modularity(codes, FACTORS)
    per_code = []
    for row in literal_matrix(codes, FACTORS):
        largest = max(row) ** 2
        rest = sum(value**2 for value in row) - largest
        per_code.append(1 - rest / (largest * 2) if largest else 0.0)
    assert np.allclose(found.per_code, per_code, atol=1e-9)
    assert found.score == pytest.approx(np.mean(per_code), abs=1e-9)


def test_sap_is_the_literal_one() -> None:
    codes, tested = codes_of("noisy", FACTORS), codes_of("noisy", TEST)
    found = metrics.sap(codes, FACTORS, test=(tested, TEST))
    gaps = []
    for j in range(3):
        accuracies = []
        for i in range(3):
            model = LinearSVC(C=0.01, class_weight="balanced", random_state=stream_seed(0, FITS, i) % 2**32)
            model.fit(codes[:, [i]], FACTORS[:, j])
            accuracies.append(sum(model.predict(tested[:, [i]]) == TEST[:, j]) / 300)
        assert np.allclose(found.matrix[:, j], accuracies, atol=1e-9)
        gaps.append(sorted(accuracies)[-1] - sorted(accuracies)[-2])
    assert found.score == pytest.approx(np.mean(gaps), abs=1e-9)


def test_sap_of_continuous_factors_is_the_squared_correlation() -> None:
    codes = codes_of("noisy", FACTORS)
    found = metrics.sap(codes, FACTORS, test=(codes, FACTORS), continuous=True)
    for i in range(3):
        expected = [LinearRegression().fit(codes[:, [i]], factor).score(codes[:, [i]], factor) for factor in FACTORS.T]
        assert np.allclose(found.matrix[i], expected, atol=1e-9)
    assert found.score > 0.9 > score(metrics.sap, "noisy") + 0.3  # the two are not to be compared


def area(scores: np.ndarray, positive: np.ndarray) -> float:
    """Of all pairs of a positive and a negative row, the share in the right order."""
    yes, no = scores[positive][:, None], scores[~positive][None]
    return float(((yes > no) + 0.5 * (yes == no)).mean())


@pytest.mark.parametrize("kind", ["noisy", "rotated", "random", "dead"])
def test_explicitness_is_the_literal_one(kind: str) -> None:
    codes, tested = codes_of(kind, FACTORS), codes_of(kind, TEST)
    found = metrics.explicitness(codes, FACTORS, test=(tested, TEST))
    varying = codes.std(0) > 1e-12
    scale = np.where(varying, codes.std(0), 1)
    x, x_test = (codes - codes.mean(0)) / scale * varying, (tested - codes.mean(0)) / scale * varying
    per_factor = []
    for j in range(3):
        shares = LogisticRegression().fit(x, FACTORS[:, j]).predict_proba(x_test)
        per_factor.append(np.mean([area(shares[:, value], TEST[:, j] == value) for value in range(SIZES[j])]))
    assert np.allclose(found.per_factor, per_factor, atol=1e-9)
    assert found.score == pytest.approx(np.mean(per_factor), abs=1e-9)


def test_dci_is_the_literal_one() -> None:
    factors, others = drawn(240), drawn(120, seed=1)
    codes, tested = (codes_of("rotated", rows) + 0.3 * noise(len(rows), 3) for rows in (factors, others))
    found = metrics.dci(codes, factors, test=(tested, others), seed=3)
    models = [
        GradientBoostingClassifier(random_state=stream_seed(3, FITS, j) % 2**32).fit(codes, factors[:, j])
        for j in range(3)
    ]
    matrix = np.stack([model.feature_importances_ for model in models], 1)
    assert np.allclose(found.matrix, matrix, atol=1e-9)
    disentanglement = completeness = 0.0
    for i in range(3):
        shares = (matrix[i] + 1e-11) / sum(matrix[i] + 1e-11)
        disentanglement += matrix[i].sum() / matrix.sum() * (1 + sum(p * log(p, 3) for p in shares))
        shares = (matrix[:, i] + 1e-11) / sum(matrix[:, i] + 1e-11)
        completeness += matrix[:, i].sum() / matrix.sum() * (1 + sum(p * log(p, 3) for p in shares))
    assert found.disentanglement == found.score == pytest.approx(disentanglement, abs=1e-9)
    assert found.completeness == pytest.approx(completeness, abs=1e-9)
    accuracies = [model.score(tested, others[:, j]) for j, model in enumerate(models)]
    assert found.informativeness == pytest.approx(np.mean(accuracies), abs=1e-9)
    assert found.informativeness_train > found.informativeness
    assert metrics.dci(codes, factors, test=(tested, others), seed=3).score == found.score


def test_the_base_of_disentanglement_is_the_number_of_factors() -> None:
    """One factor more than codes: with the other base the two would change places."""
    small = drawn(200)
    codes = np.stack([small[:, 0] + small[:, 1], small[:, 2] * 1.0], 1) + 0.01 * noise(200, 2)
    found = metrics.dci(codes, small, test=(codes, small))
    shares = (found.matrix[0] + 1e-11) / (found.matrix[0] + 1e-11).sum()
    assert found.per_code[0] == pytest.approx(1 + np.sum(shares * np.log(shares)) / log(3), abs=1e-9)
    assert abs(found.per_code[0] - (1 + np.sum(shares * np.log(shares)) / log(2))) > 0.05


# --- known answers --------------------------------------------------------------------------------

KNOWN: dict[str, dict[str, tuple[float, float]]] = {
    "mig": {"perfect": (0.97, 1), "noisy": (0.95, 1), "rotated": (0, 0.4), "random": (0, 0.05), "redundant": (0, 1e-9)},
    "modularity": {"perfect": (0.99, 1), "noisy": (0.99, 1), "rotated": (0.4, 0.95), "random": (0.3, 0.9)},
    "irs": {"perfect": (1, 1), "noisy": (0.9, 1), "rotated": (0.2, 0.85), "random": (0, 0.5), "redundant": (1, 1)},
    "sap": {"perfect": (0.15, 0.6), "rotated": (0, 0.25), "random": (0, 0.1), "redundant": (0, 0.02)},
    "explicitness": {"perfect": (0.98, 1), "rotated": (0.98, 1), "random": (0.4, 0.6), "constant": (0.5, 0.5)},
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_codes_have_known_scores(name: str) -> None:
    for kind, (least, most) in KNOWN[name].items():
        assert least - 1e-9 <= score(getattr(metrics, name), kind) <= most + 1e-9, kind


def test_known_codes_have_a_known_dci() -> None:
    small, tested = drawn(240, sizes=(3, 4)), drawn(120, seed=1, sizes=(3, 4))
    found = {
        kind: metrics.dci(codes_of(kind, small), small, test=(codes_of(kind, tested), tested))
        for kind in ("perfect", "rotated", "random", "redundant", "constant")
    }
    assert found["perfect"].score > 0.99
    assert found["perfect"].completeness > 0.99
    assert found["perfect"].informativeness == 1
    assert found["rotated"].score < 0.7
    assert found["rotated"].informativeness > 0.9  # nothing is lost, only mixed
    assert found["random"].score < 0.2
    assert found["random"].informativeness < 0.6
    assert found["redundant"].score > 0.99 > found["redundant"].completeness + 0.05
    assert abs(found["constant"].score) < 1e-6
    assert not found["constant"].matrix.any()


@pytest.mark.parametrize("metric", QUICK, ids=lambda f: f.__name__)
@pytest.mark.parametrize("kind", ["constant", "dead"])
def test_constant_codes_are_scored(metric: Any, kind: str) -> None:
    found = score(metric, kind)
    assert np.isfinite(found)
    if kind == "constant":
        assert found == (0.5 if metric is metrics.explicitness else 0)
    else:
        share = 0.75 if metric is metrics.modularity else 1  # one code of four tells of nothing
        # A line through a constant guesses one class, which is sometimes better than what else comes second.
        assert found == pytest.approx(score(metric, "perfect") * share, abs=0.02 if metric is metrics.sap else 1e-6)


def test_shuffled_rows_say_where_the_scale_starts() -> None:
    found = metrics.modularity(codes_of("random", FACTORS), FACTORS)
    assert found.chance > 0.5  # as high as that
    assert found.score - found.chance < 0.25
    assert metrics.mig(codes_of("noisy", FACTORS), FACTORS).chance < 0.05
    one, two = (metrics.mig(codes_of("noisy", FACTORS), FACTORS, seed=seed) for seed in (0, 1))
    assert one.score == two.score
    assert one.chance != two.chance


def test_test_rows_fall_into_the_bins_of_the_others() -> None:
    codes = codes_of("noisy", FACTORS)
    assert metrics.mig(codes, FACTORS).test_score is None
    assert metrics.mig(codes, FACTORS, test=(codes, FACTORS)).test_score == metrics.mig(codes, FACTORS).score
    # In bins of their own, codes ten times as large would be scored as before.
    assert metrics.mig(codes, FACTORS, test=(codes * 10 + 100, FACTORS)).test_score == pytest.approx(0, abs=1e-9)


# --- input ----------------------------------------------------------------------------------------


def test_factors_may_be_continuous() -> None:
    factors = np.stack([np.random.default_rng(0).random(400), drawn(400)[:, 0] / 10, np.arange(400) % 40], 1)
    codes = factors + 0.01 * noise(400, 3)
    for metric in ALL:
        found = metric(codes, factors) if metric is not metrics.dci else metric(codes[:, :2], factors[:, :2])
        assert found.provenance["continuous"] == [True, False, False][: found.matrix.shape[1]]
        assert found.score > 0.05
    assert metrics.mig(codes, factors, continuous=False).provenance["continuous"] == [False] * 3
    assert metrics.dci(codes[:, :2], factors[:, :2]).accuracies[0] > 0.9  # R²
    binned = np.digitize(factors[:, 0], np.histogram(factors[:, 0], 20)[1][:-1])
    found = metrics.mig(codes, factors)
    assert found.entropies[0] == pytest.approx(literal_information(list(binned), list(binned)), abs=1e-9)


def test_a_third_is_held_out_where_no_test_rows_are_given() -> None:
    codes = codes_of("noisy", FACTORS)
    found = metrics.explicitness(codes, FACTORS)
    assert (found.provenance["rows"], found.provenance["test_rows"]) == (400, 200)
    assert metrics.explicitness(codes, FACTORS).score == found.score
    others = {metrics.sap(codes, FACTORS, seed=seed).score for seed in range(4)}
    assert len(others) > 1


def test_values_that_one_side_lacks_are_counted() -> None:
    codes = codes_of("noisy", FACTORS)
    few = FACTORS[:, 0] < 3
    found = metrics.explicitness(codes[few], FACTORS[few], test=(codes, FACTORS))
    assert found.left_out.tolist() == [1, 0, 0]
    with pytest.raises(cp.ProbeError, match=r"the 1 test rows have one value of factor 0, or none that was fitted"):
        metrics.explicitness(codes, FACTORS, test=(codes[:1], FACTORS[:1]))


def test_tensors_are_taken() -> None:
    codes = torch.tensor(codes_of("noisy", FACTORS), requires_grad=True)
    assert metrics.mig(codes, torch.tensor(FACTORS)).score == metrics.mig(codes.detach().numpy(), FACTORS).score


BAD: list[tuple[dict[str, Any], str]] = [
    ({"codes": np.zeros((599, 3))}, r"there are 599 rows of codes and 600 of factors; give both for every image"),
    ({"codes": np.full((600, 3), np.nan)}, r"the codes hold nan in row 0, column 0; give finite numbers"),
    ({"factors": np.stack([FACTORS[:, 0], np.full(600, 7)], 1)}, r"factor 1 has one value, 7, in all 600 rows"),
    ({"codes": np.zeros(600)}, r"the codes have shape \(600,\); give an array \(rows, columns\)"),
    ({"codes": np.array([["a"]] * 600)}, r"the codes are of type <U1; give numbers"),
    ({"codes": [[0.0, 1.0], [2.0]]}, r"the codes are rows of unequal length; give an array \(rows, columns\)"),
    ({"codes": np.full((600, 3), 1e300)}, r"the codes hold values up to 1e\+300; scale them to less than 1e\+15"),
    ({"codes": np.zeros((1, 3)), "factors": FACTORS[:1]}, r"there are 1 rows of codes; give at least 2"),
    ({"test": np.zeros((3, 3))}, r"test is a ndarray; give a pair"),
    ({"test": (np.zeros((3, 3)), FACTORS[:4])}, r"there are 3 rows of test codes and 4 of test factors"),
    ({"test": (np.zeros((3, 2)), FACTORS[:3])}, r"the test rows have 2 codes and the others 3"),
    ({"test": (np.zeros((0, 3)), FACTORS[:0])}, r"there are 0 test rows"),
    ({"continuous": [True]}, r"continuous has 1 values for 3 factors"),
    ({"seed": -1}, r"the seed is -1; give an integer of at least 0"),
]  # fmt: skip


@pytest.mark.parametrize("metric", ALL, ids=lambda f: f.__name__)
@pytest.mark.parametrize(("changes", "message"), BAD, ids=range(len(BAD)))
def test_input_that_does_not_fit(metric: Any, changes: dict[str, Any], message: str) -> None:
    given = {"codes": codes_of("noisy", FACTORS), "factors": FACTORS, **changes}
    codes, factors = given.pop("codes"), given.pop("factors")
    with pytest.raises(cp.ProbeError, match=message):
        metric(codes, factors, **given)


@pytest.mark.parametrize(
    ("metric", "columns", "message"),
    [
        (metrics.mig, (1, 3), "MIG compares codes and there is 1; give at least 2"),
        (metrics.sap, (1, 3), "SAP compares codes"),
        (metrics.dci, (1, 3), "DCI compares codes"),
        (metrics.dci, (3, 1), "DCI compares factors"),
        (metrics.modularity, (3, 1), "modularity compares factors"),
    ],
)
def test_too_few_columns(metric: Any, columns: tuple[int, int], message: str) -> None:
    with pytest.raises(cp.ProbeError, match=message):
        metric(codes_of("noisy", FACTORS)[:, : columns[0]], FACTORS[:, : columns[1]])


def test_wrong_settings() -> None:
    codes = codes_of("noisy", FACTORS)
    with pytest.raises(cp.ProbeError, match="quantile is 99; give a number above 0, up to 1"):
        metrics.irs(codes, FACTORS, quantile=99)
    with pytest.raises(cp.ProbeError, match="bins is 1; give an integer of at least 2"):
        metrics.mig(codes, FACTORS, bins=1)
    rare = np.zeros((30, 2))
    rare[3] = rare[4] = 1
    found = []
    for seed in range(40):
        try:
            metrics.sap(noise(30, 2), rare, seed=seed)
        except cp.ProbeError as error:
            found.append(str(error))
    assert found
    assert all("one value in the 20 rows that remain to fit on; give more rows, or test=" in text for text in found)
