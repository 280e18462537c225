"""The result of every metric: the score, the matrix behind it, and its provenance."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from ..base.errors import ProbeError, first_line
from ..base.files import read_bytes, write_json

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats: TypeAlias = npt.NDArray[np.float64]
FORMAT = 1


@dataclass(frozen=True, eq=False, repr=False)
class Score:
    """Base of the metrics' results: ``save`` and ``load`` as JSON, ``plot``, and a one-line ``repr``.

    Attributes:
        score: the metric.
        matrix: (d, f) values of each code and factor, from which the score is computed.
        provenance: metric, rows, codes, factors, which of these are continuous, bins, seed, versions.
    """

    score: float
    matrix: Floats
    provenance: dict[str, Any]

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write JSON, atomically; ``load`` of the same class reads it back."""
        fields = {item.name: _plain(getattr(self, item.name)) for item in dataclasses.fields(self)}
        return write_json(path, {"kind": type(self).__name__, "format": FORMAT, **fields})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a file written by ``save``; any other file raises a ProbeError."""
        try:
            content = json.loads(read_bytes(path))
            kind, version = content.pop("kind"), content.pop("format")
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ProbeError(f"{path} holds no score ({first_line(error)}); give a file made by .save()") from error
        if kind != cls.__name__ or version != FORMAT:
            raise ProbeError(
                f"{path} holds {kind} of format {version} and not {cls.__name__} of format {FORMAT}; load it with that "
                "class and version"
            )
        # Arrays are the only lists among the fields.
        values: dict[str, Any] = {
            name: np.array(value, np.float64) if isinstance(value, list) else value for name, value in content.items()
        }
        try:
            return cls(**values)
        except TypeError as error:
            raise ProbeError(
                f"{path} lacks a part of {cls.__name__} ({first_line(error)}); make it again with .save()"
            ) from error

    def plot(self, ax: Axes | None = None) -> tuple[Figure, Axes]:
        """``matrix`` in grey: codes down, factors across."""
        from .plots import plot_matrix

        return plot_matrix(self.matrix, f"{type(self).__name__} {self.score:.3f}", ax=ax)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._shown()}; {self._about()}{self._more()})"

    def _shown(self) -> str:
        return f"{self.score:.3f}"

    def _more(self) -> str:
        return ""

    def _about(self) -> str:
        about = self.provenance
        rows = f"{about['rows']}"
        if about["test_rows"]:
            rows += f" and {about['test_rows']} test"
        codes, factors = self.matrix.shape
        bins = f", {about['bins']} bins" if about["bins"] else ""
        return f"{rows} rows, {codes} codes, {factors} factors{bins}"


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
