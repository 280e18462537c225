"""Several factorisations at once: those of scikit-learn one by one, whatever the shape and precision of the rows."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

import counterfactual_probe as cp
from counterfactual_probe.modules import clustering
from counterfactual_probe.modules.clustering import factorise, factorise_all, factorise_quickly, most_modules
from support.planted import planted, structureless
from support.twins import literal_bits, literal_nmf

NUMBERS = (2, 3, 5)


def rows_of(channels: int, side: int, binary: bool) -> Any:
    maps = structureless(channels, side) + 0.7 * planted(3, channels // 3, side)[0]
    return literal_bits(maps, 3) if binary else maps.reshape(channels, -1)


@pytest.mark.parametrize("binary", [True, False], ids=["bits", "reals"])
@pytest.mark.parametrize(("channels", "side"), [(24, 16), (30, 4), (45, 12)], ids=["wide", "tall", "many"])
def test_nmfs_side_by_side_are_the_literal_ones(channels: int, side: int, binary: bool) -> None:
    rows = rows_of(channels, side, binary)
    exact, quick = factorise_all(rows, NUMBERS, "nmf", 2), factorise_quickly(rows, NUMBERS, "nmf", 2)
    for k, (labels, templates), (quick_labels, quick_templates) in zip(NUMBERS, exact, quick, strict=True):
        wanted, _, literal = literal_nmf(rows, k, 2)
        assert labels.tolist() == wanted.tolist()
        np.testing.assert_allclose(templates, literal, rtol=0, atol=1e-9)
        assert (quick_labels == wanted).mean() > 0.95
        assert quick_templates.dtype == np.float32
        np.testing.assert_allclose(quick_templates, literal, rtol=0, atol=2e-3)
    other = factorise_all(np.abs(rows - rows[:1]), NUMBERS, "nmf", 2)
    assert any(not np.allclose(one[1], two[1], atol=1e-6) for one, two in zip(exact, other, strict=True))


@pytest.mark.parametrize("method", ["nmf", "kmeans"])
def test_company_changes_nothing(method: Any) -> None:
    rows = rows_of(24, 16, binary=True)
    for k, (labels, templates) in zip(NUMBERS, factorise_all(rows, NUMBERS, method, 0), strict=True):
        alone, own, _ = factorise(rows, k, method, 0)
        assert labels.tolist() == alone.tolist()
        np.testing.assert_allclose(templates, own, rtol=0, atol=1e-9)


def test_each_nmf_that_stops_at_its_limit_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clustering, "_MOST_ITERATIONS", 5)
    rows = rows_of(24, 16, binary=False)
    with pytest.warns(ConvergenceWarning) as told:
        factorise_all(rows, NUMBERS, "nmf", 0)
    assert len(told) == len(NUMBERS)
    factorise_all(rows, NUMBERS, "nmf", 0, tolerance=1.1)  # content with their first step


def test_rows_hold_as_many_modules_as_there_are_different_ones() -> None:
    rows = np.repeat(np.eye(3), 4, axis=0)
    assert most_modules(rows, "nmf") == most_modules(rows, "kmeans") == 3
    assert most_modules(rows[:, :2], "nmf") == 2
    assert most_modules(rows[:, :2], "kmeans") == 3
    with pytest.raises(cp.ProbeError, match="4 modules asked of 3 different maps; ask for at most 3"):
        factorise_quickly(np.pad(rows, ((0, 0), (0, 5))), [2, 4], "nmf", 0)


def test_without_the_private_descent_scikit_learn_factorises_each(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.abs(np.random.default_rng(0).standard_normal((12, 30)))
    together = factorise_all(rows, [2, 3], "nmf", 0)
    monkeypatch.setitem(sys.modules, "sklearn.decomposition._cdnmf_fast", None)
    alone = factorise_all(rows, [2, 3], "nmf", 0)
    for (labels, templates), (others, expected), k in zip(together, alone, (2, 3), strict=True):
        np.testing.assert_array_equal(labels, others)
        np.testing.assert_allclose(templates, expected, atol=1e-5)
        np.testing.assert_array_equal(others, factorise(rows, k, "nmf", 0)[0])
