"""The table of a sweep: a row for each job, with its settings, how it ended, and the numbers of its results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..base.display.described import Described, Tabulated
from ..base.display.description import Description, Table
from ..base.display.text import counted
from ..base.errors import ProbeError, first_few
from ..base.files import names_in, read_json
from ..influence.maps import InfluenceMaps
from .job import OUTCOME

_SHOWN = 20
_LEFT_OUT = ("provenance", "versions")


@dataclass(frozen=True)
class Row:
    """A job that has ended.

    Attributes:
        problem: why it failed; empty if it did not.
        results: numbers and words of its files.
    """

    job: str
    settings: Mapping[str, Any]
    seconds: float
    problem: str
    results: Mapping[str, Any]


@dataclass(frozen=True, repr=False)
class Sweep(Described, Tabulated):
    """What :func:`sweep` gives: ``to_csv``, ``to_json`` and ``to_dataframe`` have a row for each job.

    Attributes:
        out: the folder, in which each job has one of its own.
        rows: in the order of the file.
    """

    out: Path
    rows: tuple[Row, ...]

    @property
    def failed(self) -> tuple[Row, ...]:
        """The jobs that failed."""
        return tuple(row for row in self.rows if row.problem)

    def records(self) -> Iterator[dict[str, Any]]:
        """One for each job: its name, settings, status, seconds and results; what a job lacks is empty."""
        settings = list(dict.fromkeys(name for row in self.rows for name in row.settings))
        results = list(dict.fromkeys(name for row in self.rows for name in row.results))
        for row in self.rows:
            yield {
                "job": row.job,
                **{name: row.settings.get(name) for name in settings},
                "status": "failed" if row.problem else "done",
                "problem": row.problem,
                "seconds": row.seconds,
                **{name: row.results.get(name) for name in results},
            }

    def describe(self) -> Description:
        """How many jobs there are, which failed and why."""
        failed = self.failed
        rows = tuple((row.job, row.problem or "done", f"{row.seconds:.0f}") for row in self.rows[:_SHOWN])
        more = f"The first {_SHOWN} of {len(self.rows)}." if len(self.rows) > _SHOWN else ""
        return Description(
            "Sweep",
            f"{counted(len(self.rows), 'job')} in {self.out}, {len(failed)} failed",
            table=Table(("job", "how it ended", "seconds"), rows, more, text_columns=2),
            warning=f"failed: {first_few([row.job for row in failed])}" if failed else "",
            page="scaling",
        )


def numbers_in(folder: Path) -> dict[str, Any]:
    """The numbers, words and truth values at the top of the JSON files of a folder, and of its influence maps."""
    found: dict[str, Any] = {}
    for name in names_in(folder):
        if name.endswith(".json") and name != OUTCOME and not name.endswith(".command.json"):
            try:
                content = read_json(folder / name)
            except (ProbeError, ValueError):  # not a result, or too large for a table
                continue
            if isinstance(content, dict):
                found |= _flat(content)
        elif name.startswith("maps-") and name.endswith(".safetensors"):
            found |= _of_maps(InfluenceMaps.load(folder / name))
    return found


def _flat(content: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in content.items():
        if name in _LEFT_OUT:
            continue
        if isinstance(value, dict) and not before:
            flat |= _flat(value, f"{name}.")
        elif value is None or isinstance(value, (str, int, float)):
            flat[f"{before}{name}"] = value
    return flat


def _of_maps(maps: InfluenceMaps) -> dict[str, Any]:
    errors = maps.relative_error
    return {
        "unit_sets": len(maps),
        "median_influence": float(maps.influence.median()),
        "largest_influence": float(maps.influence.max()),
        "median_relative_error": float(errors.median()),
        "largest_relative_error": float(errors.max()),
    }
