"""Rows of plain values, and the tables that other programs read: CSV, JSON and pandas."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ..errors import ProbeError
from ..files import write_text

if TYPE_CHECKING:
    import pandas

Record: TypeAlias = "Mapping[str, str | float | bool | None]"


def csv_text(records: Iterable[Mapping[str, Any]], columns: Sequence[str] | None = None) -> str:
    """A header and one line for each record; text with commas, quotes or line breaks is quoted.

    >>> print(csv_text([{"layer": 'a "b", c', "mse": 0.5}]), end="")
    layer,mse
    "a ""b"", c",0.5

    Numbers are written so that reading them gives the same ones; None is left empty. The columns are those of the
    first record, unless given.
    """
    rows = list(records)
    text = io.StringIO()
    names = list(rows[0] if columns is None and rows else columns or ())
    writer = csv.DictWriter(text, names, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows({name: plain(row.get(name)) for name in names} for row in rows)
    return text.getvalue()


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
