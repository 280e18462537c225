"""Rows of plain values, and the tables that other programs read: CSV, JSON and pandas."""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ..errors import ProbeError
from ..files import write_text

if TYPE_CHECKING:
    import pandas

# Text that begins so is a formula to spreadsheets, full-width signs too; and numbers, which need no guard.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?(inf|nan)", re.IGNORECASE)

Record: TypeAlias = "Mapping[str, str | float | bool | None]"


def csv_text(records: Iterable[Mapping[str, Any]], columns: Sequence[str] | None = None) -> str:
    """A header and one line for each record; text with commas, quotes or line breaks is quoted.

    >>> print(csv_text([{"layer": 'a "b", c', "mse": 0.5}]), end="")
    layer,mse
    "a ""b"", c",0.5

    Numbers are written so that reading them gives the same ones; None is left empty. Text that a spreadsheet would run
    as a formula gets an apostrophe in front (:func:`guarded`). The columns are those of the first record, unless given.
    """
    rows = list(records)
    text = io.StringIO()
    names = list(rows[0] if columns is None and rows else columns or ())
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(guarded, names))
    writer.writerows([guarded(plain(row.get(name))) for name in names] for row in rows)
    return text.getvalue()


def guarded(cell: Any) -> Any:
    """A cell of a CSV file; text that would be a formula with an apostrophe in front, which spreadsheets do not show.

    >>> guarded("=1+1"), guarded("main.8"), guarded(-0.5), guarded("-0.5")
    ("'=1+1", 'main.8', -0.5, '-0.5')
    """
    formula = isinstance(cell, str) and _FORMULA.match(cell) and not _NUMBER.fullmatch(cell)
    return f"'{cell}" if formula else cell


def unguarded(cell: str) -> str:
    """The text of a cell that :func:`guarded` made.

    >>> unguarded("'=1+1"), unguarded("'quoted'")
    ('=1+1', "'quoted'")
    """
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def write_csv(
    path: str | os.PathLike[str], records: Iterable[Mapping[str, Any]], columns: Sequence[str] | None = None
) -> Path:
    """The same as a file, atomically."""
    return write_text(path, csv_text(records, columns))


def json_ready(value: Any) -> Any:
    """Arrays as lists, and None for NaN and infinity, which JSON has not."""
    value = plain(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): json_ready(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_ready(item) for item in value]
    return value


def dataframe(records: Iterable[Mapping[str, Any]]) -> pandas.DataFrame:
    """The records as a pandas table, if pandas is installed."""
    try:
        import pandas
    except ImportError as error:
        raise ProbeError(
            "to_dataframe() needs pandas, which is not installed; install counterfactual-probe[pandas], or write the "
            "same rows with .to_csv(path)"
        ) from error
    return pandas.DataFrame(list(records))


def plain(value: Any) -> Any:
    """NumPy's and torch's numbers and arrays as Python's."""
    return value.tolist() if hasattr(value, "tolist") else value
