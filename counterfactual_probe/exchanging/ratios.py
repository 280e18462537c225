"""Ratios of means over pairs, with the standard errors of ratios."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..modules.clustering import Array


class Ratio(NamedTuple):
    """A ratio of two means over pairs.

    Attributes:
        value: (…), NaN where the denominator is 0.
        deviations: (pairs, …) what each pair adds to the ratio's deviation, to first order; those of a sum of ratios
            are the sums of these.
    """

    value: Array
    deviations: Array

    @property
    def standard_error(self) -> Array:
        return standard_error(self.deviations)


def ratio(numerator: Array, denominator: Array) -> Ratio:
    """Of values (pairs, …): a mean over another, so that pairs in which little changes count little.

    >>> ratio(np.array([[1.0], [3.0]]), np.array([[2.0], [6.0]])).value.tolist()
    [0.5]
    """
    below = denominator.mean(0)
    below = np.where(below > 0, below, np.nan)
    value = numerator.mean(0) / below
    return Ratio(np.asarray(value), np.asarray((numerator - value * denominator) / below))


def standard_error(deviations: Array) -> Array:
    """(…) of deviations (pairs, …) from a mean, or from a ratio of means."""
    n = len(deviations)
    return np.asarray(np.sqrt(np.square(deviations).sum(0) / (n * (n - 1))))
