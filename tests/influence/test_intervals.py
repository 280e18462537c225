"""Intervals around influences: the formula, what they hold, and what one cannot ask."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import t

import counterfactual_probe as cp
from counterfactual_probe.influence.maps import influence_interval
from support.toys import PLAIN


def test_an_interval_is_students_of_the_logarithm() -> None:
    maps = cp.InfluenceMap(PLAIN.generator(), PLAIN.layer).attribute(n_pairs=16, seed=0)
    low, high = maps.interval(0.9)
    for k in range(len(maps)):
        mean, error = float(maps.influence[k]), float(maps.influence_standard_error[k])
        factor = math.exp(t.ppf(0.95, 15) * error / mean) if mean else 1.0
        assert float(low[k]) == pytest.approx(mean / factor)
        assert float(high[k]) == pytest.approx(mean * factor)
    (one,) = cp.InfluenceMap(PLAIN.generator(), PLAIN.layer).attribute(n_pairs=1, units=[[0]]).interval()[1]
    assert one == torch.inf
    for confidence in (0, 1, 2.0, "much"):
        with pytest.raises(cp.ProbeError, match="confidence is"):
            maps.interval(confidence)  # type: ignore[arg-type]


@pytest.mark.parametrize("n", [16, 64, 256])
def test_intervals_of_skewed_influence_hold_more_than_two_errors_do(n: int) -> None:
    runs, truth = 4000, math.exp(0.5 * 0.8**2)
    drawn = torch.from_numpy(np.random.default_rng(n).lognormal(0, 0.8, (runs, n)))
    mean, error = drawn.mean(1), drawn.std(1) / n**0.5
    low, high = influence_interval(mean, error, torch.full((runs,), n), 0.95)
    held = float(((low <= truth) & (truth <= high)).double().mean())
    plain = float(((mean - truth).abs() <= 2 * error).double().mean())
    assert held > plain or n == 256  # where both are right
    assert 0.91 < held < 0.97
