"""Codes and factors as arrays: validation, and the split into rows to fit on and rows to test on."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from ..base.errors import ProbeError, whole
from ..base.formats.elsewhere import plain_array
from ..generator.latents import stream_seed
from ..version import __version__

Array: TypeAlias = "npt.ArrayLike | torch.Tensor"
Floats: TypeAlias = npt.NDArray[np.float64]
Labels: TypeAlias = npt.NDArray[np.int64]
BINS = 20
LARGEST = 1e15  # the fitted models store codes in single precision, and square them
SPLIT, SHUFFLE, FITS = 9, 10, 11  # random streams
_TESTED = 3  # one row in three is held out if no test rows are given


@dataclass(frozen=True)
class CodeTable:
    """Rows of codes (n, d) and factors (n, f), and for each factor whether it is continuous."""

    codes: Floats
    factors: Floats
    continuous: tuple[bool, ...]

    def __len__(self) -> int:
        return len(self.codes)

    def rows(self, index: npt.NDArray[Any]) -> CodeTable:
        return CodeTable(self.codes[index], self.factors[index], self.continuous)


def labels(bins: int, first: CodeTable, *others: CodeTable) -> list[Labels]:
    """The factors of each table as integers: numbers of values, counted from 0, or of bins for continuous factors.

    Values are numbered over all tables together; bins are those of the first table.
    """
    tables = (first, *others)
    numbered: list[list[Labels]] = [[] for _ in tables]
    for j, continuous in enumerate(first.continuous):
        columns = [each.factors[:, j] for each in tables]
        known = edges(columns[0], bins) if continuous else np.unique(np.concatenate(columns))
        for column, numbers in zip(columns, numbered, strict=True):
            number = np.digitize(column, known) if continuous else np.searchsorted(known, column)
            numbers.append(number.astype(np.int64))
    return [np.stack(numbers, axis=1) for numbers in numbered]


def many_as_continuous(rows: CodeTable, bins: int) -> CodeTable:
    """The table with factors of more than ``bins`` values marked as continuous, so that they are binned."""
    many = tuple(len(np.unique(column)) > bins for column in rows.factors.T)
    return CodeTable(rows.codes, rows.factors, tuple(map(operator.or_, rows.continuous, many)))


def edges(values: Floats, bins: int) -> Floats:
    """Left edges of equal bins between the smallest and the largest value.

    The last edge is omitted, so that the largest value falls into the last bin.
    """
    left: Floats = np.histogram(values, bins)[1][:-1]
    return left


def checked_table(codes: Array, factors: Array, continuous: bool | Sequence[bool] | None, what: str = "") -> CodeTable:
    """Both arrays as float64; a ProbeError if they are invalid. ``what`` precedes their names in messages."""
    one, two = _numeric_matrix(codes, f"the {what}codes"), _numeric_matrix(factors, f"the {what}factors")
    if len(one) != len(two):
        raise ProbeError(
            f"there are {len(one)} rows of {what}codes and {len(two)} of {what}factors; give both for every image"
        )
    if len(one) < 2:
        raise ProbeError(f"there are {len(one)} rows of {what}codes; give at least 2, and thousands for a stable score")
    for j in range(two.shape[1]):
        if np.all(two[:, j] == two[0, j]):
            raise ProbeError(
                f"factor {j} has one value, {two[0, j]:g}, in all {len(two)} rows of {what}factors; leave it out, or "
                "give rows in which it varies"
            )
    return CodeTable(one, two, _kinds(two, continuous))


def _numeric_matrix(given: Array, what: str) -> Floats:
    values = plain_array(given, what, "an array (rows, columns)")
    if values.ndim != 2 or values.shape[1] == 0:
        raise ProbeError(f"{what} have shape {values.shape}; give an array (rows, columns), a row for each image")
    values = values.astype(np.float64)
    if not np.all(np.isfinite(values)):
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise ProbeError(f"{what} hold {values[row, column]} in row {row}, column {column}; give finite numbers")
    if (largest := np.abs(values).max(initial=0)) > LARGEST:
        raise ProbeError(f"{what} hold values up to {largest:.3g}; scale them to less than {LARGEST:g}")
    return values


def _kinds(factors: Floats, continuous: bool | Sequence[bool] | None) -> tuple[bool, ...]:
    columns: int = factors.shape[1]
    if isinstance(continuous, (bool, np.bool_)):
        return (bool(continuous),) * columns
    if continuous is not None:
        if len(continuous) != columns:
            raise ProbeError(
                f"continuous has {len(continuous)} values for {columns} factors; give one for each, or one for all"
            )
        return tuple(bool(value) for value in continuous)
    # Hues 0, 0.1, … 0.9 are ten classes, and 40 integers are 40 classes.
    return tuple(bool((column % 1).any()) and len(np.unique(column)) > BINS for column in factors.T)


def with_test(
    codes: Array,
    factors: Array,
    test: tuple[Array, Array] | None,
    continuous: bool | Sequence[bool] | None,
) -> tuple[CodeTable, CodeTable | None]:
    """The rows and, if given, the test rows."""
    rows = checked_table(codes, factors, continuous)
    if test is None:
        return rows, None
    if not isinstance(test, (tuple, list)) or len(test) != 2:
        raise ProbeError(f"test is a {type(test).__name__}; give a pair (codes, factors)")
    tested = CodeTable(
        _numeric_matrix(test[0], "the test codes"), _numeric_matrix(test[1], "the test factors"), rows.continuous
    )
    if len(tested.codes) != len(tested.factors):
        checked_table(test[0], test[1], continuous, "test ")  # raises
    for name in ("codes", "factors"):
        have, wanted = getattr(tested, name).shape[1], getattr(rows, name).shape[1]
        if have != wanted:
            raise ProbeError(f"the test rows have {have} {name} and the others {wanted}; give the same columns")
    if len(tested) == 0:
        raise ProbeError("there are 0 test rows; give some, or leave test out")
    return rows, tested


def split(
    codes: Array,
    factors: Array,
    test: tuple[Array, Array] | None,
    continuous: bool | Sequence[bool] | None,
    seed: int,
) -> tuple[CodeTable, CodeTable]:
    """Rows to fit on and test rows: those given, or a random third of all rows."""
    rows, tested = with_test(codes, factors, test, continuous)
    whole(seed, "the seed", 0)
    if tested is not None:
        return rows, tested
    order = np.random.default_rng(stream_seed(seed, SPLIT, 0)).permutation(len(rows))
    held = max(1, len(rows) // _TESTED)
    fitted, tested = rows.rows(np.sort(order[held:])), rows.rows(np.sort(order[:held]))
    for j, column in enumerate(fitted.factors.T):
        if len(np.unique(column)) < 2:
            raise ProbeError(
                f"factor {j} has one value in the {len(fitted)} rows that remain to fit on; give more rows, or test="
            )
    return fitted, tested


def shuffled(rows: CodeTable, seed: int) -> CodeTable:
    """The codes with the factors of other rows, to measure the score of chance."""
    order = np.random.default_rng(stream_seed(seed, SHUFFLE, 0)).permutation(len(rows))
    return CodeTable(rows.codes[order], rows.factors, rows.continuous)


def require(rows: CodeTable, metric: str, *, codes: int = 1, factors: int = 1) -> None:
    """Raise a ProbeError if there are too few columns to compare."""
    for name, least in (("codes", codes), ("factors", factors)):
        have = getattr(rows, name).shape[1]
        if have < least:
            raise ProbeError(f"{metric} compares {name} and there is {have}; give at least {least}")


def provenance(
    metric: str, rows: CodeTable, tested: CodeTable | None, *, seed: int, bins: int | None
) -> dict[str, Any]:
    """What a score records about its input."""
    import sklearn

    return {
        "metric": metric,
        "rows": len(rows),
        "test_rows": len(tested) if tested is not None else 0,
        "codes": rows.codes.shape[1],
        "factors": rows.factors.shape[1],
        "continuous": list(rows.continuous),
        "bins": bins,
        "seed": seed,
        "versions": {"counterfactual-probe": __version__, "scikit-learn": sklearn.__version__},
    }
