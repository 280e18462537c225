"""Explicitness (Ridgeway and Mozer 2018): how well a linear classifier predicts a factor from the codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..base.errors import ProbeError, whole
from ..generator.state.settings import sklearn_defaults
from .score import Score
from .table import BINS, Array, Floats, Labels, labels, provenance, split


@dataclass(frozen=True, eq=False, repr=False)
class Explicitness(Score):
    """``score`` is the mean over factors of the area under the ROC curve on test rows: 0.5 is chance, 1 perfect.

    ``matrix`` (d, f) has the largest coefficient of each code for a value of the factor; codes have unit variance.

    Attributes:
        per_factor: (f,) mean over the factor's values, each against all others.
        train_score: ``score`` on the rows that were fitted.
        left_out: (f,) number of values without a curve: those that no test row or all test rows have, or that are not
            among the fitted rows.
    """

    per_factor: Floats
    train_score: float
    left_out: Floats


def explicitness(
    codes: Array,
    factors: Array,
    *,
    test: tuple[Array, Array] | None = None,
    seed: int = 0,
    bins: int = BINS,
    continuous: bool | Sequence[bool] | None = None,
) -> Explicitness:
    """Area under the ROC curve of a multinomial logistic regression from all codes to each factor.

    >>> cp.metrics.explicitness(codes, factors).per_factor  # doctest: +SKIP

    scikit-learn's ``LogisticRegression`` with its defaults, on codes standardised by the fitted rows' mean and
    standard deviation; a constant code becomes 0.

    Args:
        test: (codes, factors) to measure on; by default a third of the rows, held out.
        seed: for that third.
        bins: number of bins of continuous factors.
    """
    fitted, tested = split(codes, factors, test, continuous, seed)
    bins = whole(bins, "bins", 2)
    mean, deviation = fitted.codes.mean(axis=0), fitted.codes.std(axis=0)
    varies = fitted.codes.max(axis=0) > fitted.codes.min(axis=0)
    x, x_test = (
        np.where(varies, (rows.codes - mean) / np.where(varies, deviation, 1), 0.0) for rows in (fitted, tested)
    )
    fitted_labels, tested_labels = labels(bins, fitted, tested)
    columns = [_factor(x, fitted_labels[:, j], x_test, tested_labels[:, j], j) for j in range(fitted_labels.shape[1])]
    per_factor = np.array([column[0] for column in columns])
    return Explicitness(
        float(per_factor.mean()),
        np.stack([column[3] for column in columns], axis=1),
        provenance("explicitness", fitted, tested, seed=seed, bins=bins if any(fitted.continuous) else None),
        per_factor=per_factor,
        train_score=float(np.mean([column[1] for column in columns])),
        left_out=np.array([column[2] for column in columns], np.float64),
    )


@sklearn_defaults()
def _factor(
    x: Floats, fitted_labels: Labels, x_test: Floats, test_labels: Labels, j: int
) -> tuple[float, float, int, Floats]:
    """Areas on test and fitted rows, values left out, and the codes' largest coefficients."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression().fit(x, fitted_labels)
    areas, left_out = _areas(model.predict_proba(x_test), test_labels, model.classes_)
    if not areas:
        raise ProbeError(
            f"the {len(test_labels)} test rows have one value of factor {j}, or none that was fitted; give more"
        )
    train, _ = _areas(model.predict_proba(x), fitted_labels, model.classes_)
    return float(np.mean(areas)), float(np.mean(train)), left_out, np.abs(model.coef_).max(axis=0)


def _areas(probabilities: Floats, labels: Labels, classes: Labels) -> tuple[list[float], int]:
    """The area of each value against all others, and the number of values without one."""
    from sklearn.metrics import roc_auc_score

    areas, known = [], set(classes.tolist())
    for column, value in zip(probabilities.T, classes, strict=True):
        if 0 < (labels == value).sum() < len(labels):
            areas.append(float(roc_auc_score(labels == value, column)))
    return areas, len(known | set(labels.tolist())) - len(areas)
