"""The separated attribute predictability (Kumar et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..generator.latents import stream_seed
from ..generator.state.settings import sklearn_defaults
from .score import Score
from .table import BINS, FITS, Array, CodeTable, Floats, Labels, labels, provenance, require, split

_SMALL = 1e-12  # a code or factor of less variance counts as constant


@dataclass(frozen=True, eq=False, repr=False)
class SAP(Score):
    """How much better the best single code predicts a factor than the second best: ``score`` is the mean of ``gaps``.

    ``matrix`` has accuracies on test rows, or squared correlations for continuous factors. The two cannot be compared:
    a linear classifier on one code cannot separate a class in the middle, so that perfect codes of ten classes score
    only 0.19, whereas squared correlations reach 1.

    Attributes:
        gaps: (f,) the gap of each factor.
    """

    gaps: Floats


def sap(
    codes: Array,
    factors: Array,
    *,
    test: tuple[Array, Array] | None = None,
    seed: int = 0,
    continuous: bool | Sequence[bool] | None = None,
) -> SAP:
    """Difference between the two codes that predict a factor best, each by itself; mean over factors.

    >>> cp.metrics.sap(codes, factors).gaps  # doctest: +SKIP

    Predictions are those of scikit-learn's ``LinearSVC(C=0.01, class_weight="balanced")`` on one code. For a continuous
    factor the squared correlation with the code is used instead (on the rows that are not test rows).

    Args:
        test: (codes, factors) to measure accuracy on; by default a third of the rows, held out.
        seed: for that third, and for the solver.
    """
    fitted, tested = split(codes, factors, test, continuous, seed)
    require(fitted, "SAP", codes=2)
    fitted_labels, tested_labels = labels(BINS, fitted, tested)
    matrix = np.empty((fitted.codes.shape[1], fitted.factors.shape[1]))
    for i, j in np.ndindex(*matrix.shape):
        if fitted.continuous[j]:
            matrix[i, j] = _squared_correlation(fitted.codes[:, i], fitted.factors[:, j])
        else:
            matrix[i, j] = _accuracy(fitted, tested, i, fitted_labels[:, j], tested_labels[:, j], seed=seed)
    ordered = np.sort(matrix, axis=0)
    gaps = ordered[-1] - ordered[-2]
    return SAP(float(gaps.mean()), matrix, provenance("sap", fitted, tested, seed=seed, bins=None), gaps=gaps)


@sklearn_defaults()
def _accuracy(
    fitted: CodeTable, tested: CodeTable, i: int, fitted_labels: Labels, tested_labels: Labels, *, seed: int
) -> float:
    from sklearn.svm import LinearSVC

    state = stream_seed(seed, FITS, i) % 2**32
    model = LinearSVC(C=0.01, class_weight="balanced", random_state=state)
    model.fit(fitted.codes[:, i : i + 1], fitted_labels)
    return float(np.mean(model.predict(tested.codes[:, i : i + 1]) == tested_labels))


def _squared_correlation(code: Floats, factor: Floats) -> float:
    covariance = np.cov(code, factor)
    if covariance[0, 0] <= _SMALL or covariance[1, 1] <= _SMALL:
        return 0.0
    return float(covariance[0, 1] ** 2 / (covariance[0, 0] * covariance[1, 1]))
