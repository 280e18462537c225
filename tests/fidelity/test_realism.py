"""Precision against reference images, and how far its error bar can be trusted."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from counterfactual_probe.fidelity.realism import inside, reference_error


def precision_of_draw(draw: int, n: int = 128, size: int = 8) -> tuple[float, float, float]:
    """Precision of a fresh sample for a fresh reference, its standard error over images, and over reference images."""
    rng = np.random.default_rng(draw)
    reference, values = rng.normal(size=(n, size)), 1.2 * rng.normal(size=(n, size))
    hits = inside(values, reference)
    return hits.mean(), hits.std(ddof=1) / np.sqrt(n), reference_error(values, reference, seed=draw)


def test_the_error_of_precision_includes_that_of_the_reference() -> None:
    precision, of_images, of_reference = np.array([precision_of_draw(draw) for draw in range(80)]).T
    true = precision.std(ddof=1)
    assert of_images.mean() < 0.85 * true  # what was told before, which leaves the reference out
    assert 0.85 * true < np.hypot(of_images, of_reference).mean() < 1.35 * true


def test_reference_error_is_the_literal_one() -> None:
    rng = np.random.default_rng(0)
    reference, values = rng.normal(size=(21, 3)), rng.normal(size=(9, 3))
    shares, order = [], np.random.default_rng([5, 21])
    for _ in range(4):
        some = reference[np.sort(order.permutation(21)[:10])]
        radii = np.sort(cdist(some, some), 1)[:, 2]
        shares.append((cdist(values, some) <= radii).any(1).mean())
    found = reference_error(values, reference, neighbours=2, draws=4, seed=5)
    assert found == pytest.approx(np.std(shares, ddof=1))
    assert np.isnan(reference_error(values, reference[:5], neighbours=2))
