"""The metrics made of mutual information: MIG and modularity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..base.errors import whole
from .score import Score
from .table import BINS, Array, CodeTable, Floats, Labels, edges, labels, provenance, require, shuffled, with_test


@dataclass(frozen=True, eq=False, repr=False)
class MutualScore(Score):
    """A score of the mutual information of every code and factor, in nats (``matrix``).

    Attributes:
        chance: ``score`` with the rows of the codes shuffled. Plug-in estimates from few rows are above 0.
        test_score: ``score`` of the test rows, in the bins of the other rows; None without test rows.
    """

    chance: float
    test_score: float | None

    def _more(self) -> str:
        tested = f"; {self.test_score:.3f} on the test rows" if self.test_score is not None else ""
        return f"{tested}; {self.chance:.3f} with shuffled rows"


@dataclass(frozen=True, eq=False, repr=False)
class MIG(MutualScore):
    """The mutual information gap: ``score`` is the mean of ``gaps``.

    Attributes:
        entropies: (f,) of the factors, in nats.
        gaps: (f,) largest minus second largest mutual information over codes, divided by the factor's entropy.
    """

    entropies: Floats
    gaps: Floats


@dataclass(frozen=True, eq=False, repr=False)
class Modularity(MutualScore):
    """How much each code depends on a single factor: ``score`` is the mean over codes.

    Random codes score about 0.66: compare with ``chance``.

    Attributes:
        per_code: (d,) 1 − (Σ I² − max I²) / (max I² · (f − 1)), and 0 for a code without information on any factor.
    """

    per_code: Floats


def mig(
    codes: Array,
    factors: Array,
    *,
    test: tuple[Array, Array] | None = None,
    seed: int = 0,
    bins: int = BINS,
    continuous: bool | Sequence[bool] | None = None,
) -> MIG:
    """Mutual information gap (Chen et al. 2018).

    >>> cp.metrics.mig(codes, factors).score  # doctest: +SKIP

    Codes are put into equal bins between their smallest and largest value. Factors are used as they are, or binned in
    the same way if they are continuous.

    Args:
        codes: (n, d) array or tensor, such as the means of posteriors.
        factors: (n, f) array or tensor of integers or floats.
        test: further rows (codes, factors), which are scored in the same bins.
        seed: for the shuffle of ``chance``.
        bins: number of bins.
        continuous: which factors are; by default those with more than 20 values that are not all integers.
    """
    rows, tested = with_test(codes, factors, test, continuous)
    require(rows, "MIG", codes=2)
    matrix, entropies = _information(rows, rows, bins)
    gaps = _gaps(matrix, entropies)
    more = _baselines(lambda *tables: float(_gaps(*tables).mean()), rows, tested, seed, bins)
    about = provenance("mig", rows, tested, seed=seed, bins=bins)
    return MIG(float(gaps.mean()), matrix, about, **more, entropies=entropies, gaps=gaps)


def modularity(
    codes: Array,
    factors: Array,
    *,
    test: tuple[Array, Array] | None = None,
    seed: int = 0,
    bins: int = BINS,
    continuous: bool | Sequence[bool] | None = None,
) -> Modularity:
    """Modularity (Ridgeway and Mozer 2018), S004's column ModExp. Arguments as in :func:`mig`.

    >>> cp.metrics.modularity(codes, factors).per_code  # doctest: +SKIP
    """
    rows, tested = with_test(codes, factors, test, continuous)
    require(rows, "modularity", factors=2)
    matrix, _ = _information(rows, rows, bins)
    per_code = _modular(matrix)
    more = _baselines(lambda information, _: float(_modular(information).mean()), rows, tested, seed, bins)
    about = provenance("modularity", rows, tested, seed=seed, bins=bins)
    return Modularity(float(per_code.mean()), matrix, about, **more, per_code=per_code)


def _baselines(
    scored: Callable[[Floats, Floats], float], rows: CodeTable, tested: CodeTable | None, seed: int, bins: int
) -> dict[str, Any]:
    mixed = shuffled(rows, whole(seed, "the seed", 0))
    return {
        "chance": scored(*_information(mixed, mixed, bins)),
        "test_score": None if tested is None else scored(*_information(tested, rows, bins)),
    }


def binned(rows: CodeTable, of: CodeTable, bins: int) -> Labels:
    """Codes as bin numbers, with equal bins between the smallest and the largest value in ``of``."""
    bins = whole(bins, "bins", 2)
    columns = zip(rows.codes.T, of.codes.T, strict=True)
    numbers = [np.digitize(values, edges(reference, bins)) for values, reference in columns]
    return np.stack(numbers, axis=1).astype(np.int64)


def _information(rows: CodeTable, of: CodeTable, bins: int) -> tuple[Floats, Floats]:
    """Mutual information (d, f) and the factors' entropies (f,), in nats."""
    from sklearn.metrics import mutual_info_score

    codes, known = binned(rows, of, bins), labels(bins, of, rows)[1]
    matrix = np.array([[mutual_info_score(label, code) for label in known.T] for code in codes.T], np.float64)
    return matrix, np.array([mutual_info_score(label, label) for label in known.T], np.float64)


def _gaps(matrix: Floats, entropies: Floats) -> Floats:
    ordered = np.sort(matrix, axis=0)
    # Test rows may have a single value of a factor, whose entropy is then 0.
    gaps: Floats = np.divide(ordered[-1] - ordered[-2], entropies, out=np.zeros_like(entropies), where=entropies > 0)
    return gaps


def _modular(matrix: Floats) -> Floats:
    squared = matrix**2
    largest = squared.max(axis=1)
    rest = squared.sum(axis=1) - largest
    share: Floats = np.divide(rest, largest * (matrix.shape[1] - 1), out=np.ones_like(rest), where=largest > 0)
    return 1 - share
