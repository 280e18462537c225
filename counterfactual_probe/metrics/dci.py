"""Disentanglement, completeness and informativeness (Eastwood and Williams 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ..generator.latents import stream_seed
from ..generator.state.settings import sklearn_defaults
from .score import Score
from .table import BINS, FITS, Array, CodeTable, Floats, labels, provenance, require, split

_SMALL = 1e-11  # as in the reference implementation: avoids the logarithm of 0
_WORKERS = 2


@dataclass(frozen=True, eq=False, repr=False)
class DCI(Score):
    """``score`` is the disentanglement; ``matrix`` is the importance of every code for every factor.

    Attributes:
        disentanglement: how much each code matters to a single factor; mean over codes, weighted by their importance.
        completeness: how much each factor depends on a single code; mean over factors, weighted likewise.
        informativeness: how well factors are predicted on the test rows: accuracy, or R² for continuous factors.
        informativeness_train: the same on the rows that were fitted.
        per_code: (d,) disentanglement of each code.
        per_factor: (f,) completeness of each factor.
        accuracies: (f,) informativeness of each factor.
    """

    disentanglement: float
    completeness: float
    informativeness: float
    informativeness_train: float
    per_code: Floats
    per_factor: Floats
    accuracies: Floats

    def _shown(self) -> str:
        return (
            f"disentanglement {self.disentanglement:.3f}, completeness {self.completeness:.3f}, informativeness "
            f"{self.informativeness:.3f}"
        )


def dci(
    codes: Array,
    factors: Array,
    *,
    test: tuple[Array, Array] | None = None,
    seed: int = 0,
    continuous: bool | Sequence[bool] | None = None,
) -> DCI:
    """Disentanglement, completeness and informativeness by gradient-boosted trees, one model per factor.

    >>> cp.metrics.dci(codes, factors, seed=0).disentanglement  # doctest: +SKIP

    scikit-learn's ``GradientBoostingClassifier`` with its defaults, or ``GradientBoostingRegressor`` for continuous
    factors. The score grows with the number of rows, which the result records.

    Args:
        test: (codes, factors) to measure informativeness on; by default a third of the rows, held out.
        seed: for that third, and for the order in which trees try equally good splits.
    """
    fitted, tested = split(codes, factors, test, continuous, seed)
    require(fitted, "DCI", codes=2, factors=2)
    # scikit-learn grows trees without the interpreter's lock, so threads help.
    with ThreadPoolExecutor(_WORKERS) as pool:
        columns = list(pool.map(partial(_fit, fitted, tested, seed), range(fitted.factors.shape[1])))
    matrix = np.stack([column[0] for column in columns], axis=1)
    accuracies = np.array([column[1] for column in columns])
    per_code, per_factor = _concentration(matrix.T), _concentration(matrix)
    disentanglement = float(np.sum(per_code * _importance_shares(matrix, 1)))
    return DCI(
        disentanglement,
        matrix,
        provenance("dci", fitted, tested, seed=seed, bins=None),
        disentanglement=disentanglement,
        completeness=float(np.sum(per_factor * _importance_shares(matrix, 0))),
        informativeness=float(accuracies.mean()),
        informativeness_train=float(np.mean([column[2] for column in columns])),
        per_code=per_code,
        per_factor=per_factor,
        accuracies=accuracies,
    )


@sklearn_defaults()
def _fit(fitted: CodeTable, tested: CodeTable, seed: int, j: int) -> tuple[Floats, float, float]:
    """Importances of the codes for one factor, and the scores on test rows and on fitted rows."""
    from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor

    state = stream_seed(seed, FITS, j) % 2**32
    model: Any
    fitted_factors: npt.NDArray[Any]
    tested_factors: npt.NDArray[Any]
    if fitted.continuous[j]:
        model = GradientBoostingRegressor(random_state=state)
        fitted_factors, tested_factors = fitted.factors, tested.factors
    else:
        model = GradientBoostingClassifier(random_state=state)
        fitted_factors, tested_factors = labels(BINS, fitted, tested)
    model.fit(fitted.codes, fitted_factors[:, j])
    importances = np.abs(model.feature_importances_)
    return importances, model.score(tested.codes, tested_factors[:, j]), model.score(fitted.codes, fitted_factors[:, j])


def _concentration(columns: Floats) -> Floats:
    """1 − entropy of each column's shares, with the logarithm to the base of the number of rows."""
    shares = columns + _SMALL
    shares = shares / shares.sum(axis=0)
    concentration: Floats = 1 + np.sum(shares * np.log(shares), axis=0) / np.log(len(shares))
    return concentration


def _importance_shares(matrix: Floats, axis: int) -> Floats:
    """The share of each code (axis 1) or of each factor (axis 0) in the total importance."""
    total = matrix.sum()
    sums = matrix.sum(axis=axis) if total > 0 else np.ones(matrix.shape[1 - axis])
    share: Floats = sums / sums.sum()
    return share
