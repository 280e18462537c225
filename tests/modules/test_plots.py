"""Figures of modules: regression lines, and legends beside the points."""

from __future__ import annotations

import io

import numpy as np
import pytest

from counterfactual_probe.modules import plots


def test_regression_is_least_squares() -> None:
    rng = np.random.default_rng(0)
    x, noise = rng.uniform(1, 50, 30), rng.standard_normal(30)
    slope, intercept, fit = plots.regression(x, 0.5 * x + 2 + noise)
    expected = np.polyfit(x, 0.5 * x + 2 + noise, 1)
    assert (slope, intercept) == pytest.approx(tuple(expected))
    assert 0.9 < fit < 1
    assert plots.regression(x, 3 * x)[2] == pytest.approx(1)
    assert plots.regression(np.ones(4), np.arange(4.0))[0] == 0


def test_the_legend_covers_no_point() -> None:
    rng = np.random.default_rng(0)
    sizes = {f"layer {i}": rng.integers(1, 200, 40).astype(float) for i in range(6)}
    influences = {name: rng.random(40) for name in sizes}
    figure, ax = plots.plot_influence_by_size(sizes, influences)
    figure.savefig(io.BytesIO())
    legend = ax.get_legend()
    assert legend is not None
    assert not legend.get_window_extent().overlaps(ax.get_window_extent())
    assert ax.get_window_extent().width > 200
