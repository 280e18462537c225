"""A mean over seeds or draws, with the error bar that a verdict needs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
from scipy.stats import t

Verdict: TypeAlias = Literal["holds", "does not hold", "undecided", "in part"]
HOLDS: Final = "holds"
FAILS: Final = "does not hold"
UNDECIDED: Final = "undecided"
PART: Final = "in part"

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Sampled:
    """A mean and half of its 95 % interval, by Student's t.

    >>> f"{Sampled.of([1.0, 2.0, 3.0]):.2f}"
    '2.00 ± 2.48'
    >>> f"{Sampled.of([-1.0, -2.0]):+.1f}"
    '−1.5 ± 6.4'
    >>> Sampled.of([1.0, 1.1, 0.9]).sign, Sampled.of([-1.0, 1.1, 0.9]).sign
    (1, 0)
    """

    mean: float
    margin: float
    n: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Sampled:
        """Of independent values, at least two."""
        given = np.asarray(list(values), np.float64)
        if len(given) < 2:
            raise ValueError(f"{len(given)} value has no error bar; give two or more")
        error = given.std(ddof=1) / len(given) ** 0.5
        return cls(float(given.mean()), float(t.ppf((1 + CONFIDENCE) / 2, len(given) - 1) * error), len(given))

    @classmethod
    def difference(cls, one: Sequence[float], two: Sequence[float]) -> Sampled:
        """Of one − two, seed by seed."""
        return cls.of(a - b for a, b in zip(one, two, strict=True))

    @property
    def sign(self) -> int:
        """1 where the interval is above 0, −1 where it is below, 0 where it holds 0."""
        return int(self.mean > self.margin) - int(self.mean < -self.margin)

    def __format__(self, spec: str) -> str:
        return f"{self.mean:{spec}} ± {self.margin:{spec.lstrip('+')}}".replace("-", "−")


def verdict(signs: Iterable[int]) -> Verdict:
    """What signs of differences say of a claim that each is positive.

    >>> verdict([1, 1]), verdict([1, -1]), verdict([0, 1]), verdict([0, 0]), verdict([-1, 0])
    ('holds', 'in part', 'in part', 'undecided', 'does not hold')
    """
    seen = set(signs)
    if seen == {1}:
        return HOLDS
    if seen == {0}:
        return UNDECIDED
    return PART if 1 in seen else FAILS
