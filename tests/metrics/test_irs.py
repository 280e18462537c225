"""The interventional robustness score against a literal twin, factors of many values among them."""

from __future__ import annotations

import numpy as np
import pytest

from counterfactual_probe import metrics
from support.analyses.factors import FACTORS, codes_of

NAMES = ("noisy", "rotated", "random", "redundant", "dead")


def in_bins(factor: np.ndarray) -> np.ndarray:
    """disentanglement_lib puts factors, too, through its 20 bins here, which changes those of more values."""
    return np.digitize(factor, np.histogram(factor, 20)[1][:-1])


def literal_irs(codes: np.ndarray, factors: np.ndarray, quantile: float = 0.99) -> float:
    best, weights = [], []
    for code in codes.T:
        if max(code) == min(code):
            continue
        largest = max(abs(value - np.mean(code)) for value in code)
        scores = []
        for factor in map(in_bins, factors.T):
            held = [code[factor == value] for value in sorted(set(factor))]
            moved = [np.percentile([abs(v - np.mean(part)) for v in part], 100 * quantile) for part in held]
            scores.append(1 - np.mean(moved) / largest)
        best.append(max(scores))
        weights.append(largest)
    return sum(s * w for s, w in zip(best, weights, strict=True)) / sum(weights)


@pytest.mark.parametrize("name", NAMES)
def test_irs_is_the_literal_one(name: str) -> None:
    codes = codes_of(name, FACTORS)
    found = metrics.irs(codes, FACTORS)
    assert found.score == pytest.approx(literal_irs(codes, FACTORS), abs=1e-9)
    other = metrics.irs(codes, FACTORS, quantile=1.0)
    assert other.score == pytest.approx(literal_irs(codes, FACTORS, 1.0), abs=1e-9)
    assert found.active == (codes.std(0) > 1e-12).sum()


def test_irs_puts_factors_of_many_values_into_bins() -> None:
    rng = np.random.default_rng(0)
    factors = np.stack([rng.integers(0, 40, 600), rng.integers(0, 3, 600)], axis=1)
    codes = factors + rng.standard_normal((600, 2))
    found = metrics.irs(codes, factors)
    assert found.score == pytest.approx(literal_irs(codes, factors), abs=1e-9)
    assert found.provenance["bins"] == 20
    assert found.provenance["binned"] == [True, False]
    assert metrics.irs(codes, factors, continuous=False).score == found.score
    few = np.isin(factors[:, 0], [0, 1, 39])  # of a binned factor, all rows are binned, however few values they hold
    part = metrics.irs(codes, factors, test=(codes[few], factors[few]))
    assert part.test_score != pytest.approx(metrics.irs(codes[few], factors[few]).score, abs=1e-6)
    assert abs(found.score - metrics.irs(codes, factors, bins=40).score) > 0.001


def test_the_quantile_of_irs_matters() -> None:
    codes = codes_of("noisy", FACTORS)
    assert metrics.irs(codes, FACTORS).score - metrics.irs(codes, FACTORS, quantile=1.0).score > 0.001
