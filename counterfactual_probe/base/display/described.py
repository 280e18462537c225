"""What describes itself prints itself, shows itself in a notebook, and gives its rows to other programs."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from ..files import write_json
from .description import Description
from .markup import as_html
from .records import Record, csv_text, dataframe, json_ready, write_csv
from .text import as_text

if TYPE_CHECKING:
    import pandas

_LINES = 10  # of a repr


class Described(ABC):
    """One description, made into text and HTML.

    ``repr`` has the values that matter in at most ten lines, ``print`` all of them; a notebook shows pictures, a table,
    and what to be careful about.
    """

    @abstractmethod
    def describe(self) -> Description:
        """What is to be seen of it: values, a table, pictures, a warning."""

    def __repr__(self) -> str:
        return as_text(self.describe(), _LINES)

    def __str__(self) -> str:
        return as_text(self.describe())

    def _repr_html_(self) -> str:
        return as_html(self.describe())


class Tabulated(ABC):
    """Rows of plain values, as CSV, JSON and a pandas table."""

    @abstractmethod
    def records(self) -> Iterable[Record]:
        """One dict of names and plain values for each row: of a unit set, a scale, a pair, …"""

    @overload
    def to_csv(self, path: None = None) -> str: ...
    @overload
    def to_csv(self, path: str | os.PathLike[str]) -> Path: ...
    def to_csv(self, path: str | os.PathLike[str] | None = None) -> str | Path:
        """Write ``records`` as CSV, atomically; without a path, return the text.

        >>> maps.to_csv("maps.csv")  # doctest: +SKIP
        """
        return csv_text(self.records()) if path is None else write_csv(path, self.records())

    @overload
    def to_json(self, path: None = None) -> dict[str, Any]: ...
    @overload
    def to_json(self, path: str | os.PathLike[str]) -> Path: ...
    def to_json(self, path: str | os.PathLike[str] | None = None) -> dict[str, Any] | Path:
        """Write ``records`` and the provenance as JSON, atomically; without a path, return them as plain values.

        What is not a number is null.
        """
        content: dict[str, Any] = json_ready(self._json())
        return content if path is None else write_json(path, content)

    def to_dataframe(self) -> pandas.DataFrame:
        """``records`` as a pandas table; a ProbeError without pandas."""
        return dataframe(self.records())

    def _json(self) -> dict[str, Any]:
        return {"rows": list(self.records()), "provenance": getattr(self, "provenance", {})}
