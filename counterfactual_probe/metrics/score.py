"""The result of every metric: the score, the matrix behind it, and its provenance."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from ..base.display.description import Description, Picture
from ..base.display.plot import Plot
from ..base.display.records import plain
from ..base.files import load_plain, save_plain
from ..base.formats.provenance import Provenance
from ..base.formats.schema import conform
from ..base.formats.types import Count, Name
from ..generator.results import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats: TypeAlias = npt.NDArray[np.float64]
_LISTED = 10  # values of an array that a description shows


class ScoreProvenance(Provenance, kw_only=True):
    """What a score records about its input."""

    metric: Name
    rows: Count
    test_rows: Count
    codes: Count
    factors: Count
    bins: Count | None
    seed: int


@dataclass(frozen=True, eq=False, repr=False)
class Score(Result):
    """Base of the metrics' results, which are kept as JSON.

    Attributes:
        score: the metric.
        matrix: (d, f) values of each code and factor, from which the score is computed.
        provenance: metric, rows, codes, factors, which of these are continuous, bins, seed, versions.
    """

    score: float
    matrix: Floats
    provenance: dict[str, Any]

    SUFFIX: ClassVar[str] = ".json"

    SHAPES: ClassVar[Mapping[str, str]] = {
        "matrix": "float codes factors",
        "per_code": "float codes",
        "per_factor": "float factors",
        "accuracies": "float factors",
        "deviations": "float codes",
        "entropies": "float factors",
        "gaps": "float factors",
        "left_out": "float factors",
    }
    PROVENANCE: ClassVar[type[Provenance]] = ScoreProvenance

    def _write(self, path: str | os.PathLike[str]) -> Path:
        values = {item.name: plain(getattr(self, item.name)) for item in dataclasses.fields(self)}
        return save_plain(path, type(self).__name__, values)

    @classmethod
    def _read(cls, path: str | os.PathLike[str]) -> Self:
        # Arrays are the only lists among the fields.
        values = load_plain(path, cls.__name__)
        values |= {name: _array(name, value) for name, value in values.items() if isinstance(value, list)}
        cls._require_fields(values)
        result = cls(**values)
        if wrong := result._contradiction():
            raise ValueError(wrong)
        return result

    def _contradiction(self) -> str | None:
        about, (codes, factors) = self.provenance, self.matrix.shape
        if (about["codes"], about["factors"]) != (codes, factors):
            named = f"{about['codes']} codes and {about['factors']} factors"
            return f"its provenance names {named} and matrix is {codes}×{factors}"
        return None

    def describe(self) -> Description:
        """The score, what stands beside it, and the matrix that it is made of."""
        return Description(
            type(self).__name__,
            f"{self._shown()}; {self._about()}{self._more()}",
            facts=tuple((name.replace("_", " "), _listed(values)) for name, values in self._arrays()),
            pictures=(Picture("What the score is made of: codes down, factors across.", self.plot),),
            page="disentanglement",
        )

    def records(self) -> list[dict[str, Any]]:
        """One row: the score, the numbers beside it, and what it was computed from."""
        numbers = {
            item.name: value
            for item in dataclasses.fields(self)
            if not isinstance(value := getattr(self, item.name), (np.ndarray, dict))
        }
        about = {name: self.provenance[name] for name in ("rows", "test_rows", "codes", "factors", "bins", "seed")}
        return [{"metric": type(self).__name__, **numbers, **about}]

    def _json(self) -> dict[str, Any]:
        return {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}

    def _arrays(self) -> list[tuple[str, Floats]]:
        """The arrays beside the matrix: a value for each code or factor."""
        named = [(item.name, getattr(self, item.name)) for item in dataclasses.fields(self)]
        return [(name, value) for name, value in named if isinstance(value, np.ndarray) and name != "matrix"]

    def plot(self, ax: Axes | None = None) -> Plot[Axes]:
        """``matrix`` in grey: codes down, factors across."""
        from .plots import plot_matrix

        return plot_matrix(self.matrix, f"{type(self).__name__} {self.score:.3f}", ax=ax)

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


def _array(name: str, value: list[Any]) -> Floats:
    rows = isinstance(value[0], list) if value else False
    try:
        return np.array(conform(value, list[list[float]] if rows else list[float], name), np.float64)
    except ValueError as error:
        raise ValueError(str(error) if name in str(error) else f"{name} has rows of several lengths") from None


def _listed(values: Floats) -> str:
    shown = ", ".join(f"{value:.3g}" for value in values[:_LISTED])
    return shown + (f", … ({len(values)})" if len(values) > _LISTED else "")
