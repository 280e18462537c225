"""The interventional robustness score (Suter et al. 2019)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..base.errors import share, whole
from .score import Score
from .table import BINS, Array, CodeTable, Floats, Labels, labels, many_as_continuous, provenance, shuffled, with_test

QUANTILE = 0.99


@dataclass(frozen=True, eq=False, repr=False)
class IRS(Score):
    """How little a code changes while its factor is fixed: ``score`` is the mean of ``per_code``, weighted by
    ``deviations``.

    ``matrix`` is the score of every code and factor; a constant code has score 0 and weight 0.

    Attributes:
        per_code: (d,) the largest score over factors.
        deviations: (d,) the largest deviation of a code from its mean.
        active: number of codes that are not constant.
        quantile: the quantile of deviations within a factor's value: 0.99 here and in S004, 1 in Suter et al.
        chance: ``score`` with the rows of the codes shuffled.
        test_score: ``score`` of the test rows by themselves; None without test rows.
    """

    per_code: Floats
    deviations: Floats
    active: int
    quantile: float
    chance: float
    test_score: float | None

    def _more(self) -> str:
        tested = f"; {self.test_score:.3f} on the test rows" if self.test_score is not None else ""
        return f"; {self.active} codes active{tested}; {self.chance:.3f} with shuffled rows"


def irs(
    codes: Array,
    factors: Array,
    *,
    test: tuple[Array, Array] | None = None,
    seed: int = 0,
    quantile: float = QUANTILE,
    bins: int = BINS,
    continuous: bool | Sequence[bool] | None = None,
) -> IRS:
    """Interventional robustness score: 1 − (deviation of a code while a factor is fixed) / (its largest deviation).

    >>> cp.metrics.irs(codes, factors).per_code  # doctest: +SKIP

    Args:
        test: further rows (codes, factors), scored by themselves.
        seed: for the shuffle of ``chance``.
        quantile: the quantile of deviations within one value.
        bins: number of bins of continuous factors and, whatever ``continuous`` says, of other factors with more values
            than that. The library that S004 used puts all factors into 20 bins here, which changes nothing for factors
            with fewer integer values.
    """
    rows, tested = with_test(codes, factors, test, continuous)
    quantile = share(quantile, "quantile")
    bins = whole(bins, "bins", 2)
    placed = many_as_continuous(rows, bins)
    if tested is not None:
        tested = dataclasses.replace(tested, continuous=placed.continuous)
    matrix, deviations = _interventional_robustness(placed, quantile, bins)
    mixed = shuffled(placed, whole(seed, "the seed", 0))
    return IRS(
        _average(matrix, deviations),
        matrix,
        provenance("irs", rows, tested, seed=seed, bins=bins if any(placed.continuous) else None)
        | {"binned": list(placed.continuous)},
        per_code=matrix.max(axis=1),
        deviations=deviations,
        active=int((deviations > 0).sum()),
        quantile=float(quantile),
        chance=_average(*_interventional_robustness(mixed, quantile, bins)),
        test_score=None if tested is None else _average(*_interventional_robustness(tested, quantile, bins)),
    )


def _interventional_robustness(rows: CodeTable, quantile: float, bins: int) -> tuple[Floats, Floats]:
    """The score of every code and factor (d, f), and the codes' largest deviations (d,)."""
    codes = rows.codes
    varies = codes.max(axis=0) > codes.min(axis=0)
    # The mean of a constant may be off by rounding.
    deviations = np.where(varies, np.abs(codes - codes.mean(axis=0)).max(axis=0), 0.0)
    within = np.stack([_within(codes, label, quantile) for label in labels(bins, rows)[0].T], axis=1)
    spread = np.divide(within, deviations[:, None], out=np.ones_like(within), where=deviations[:, None] > 0)
    return 1 - spread, deviations


def _within(codes: Floats, label: Labels, quantile: float) -> Floats:
    """(d,) the quantile of deviations from a value's mean, averaged over values."""
    deviations = []
    for value in np.unique(label):
        held = codes[label == value]
        deviations.append(np.percentile(np.abs(held - held.mean(axis=0)), 100 * quantile, axis=0))
    mean: Floats = np.mean(deviations, axis=0)
    return mean


def _average(matrix: Floats, deviations: Floats) -> float:
    return float(np.average(matrix.max(axis=1), weights=deviations)) if deviations.sum() > 0 else 0.0
