"""Rows of the ledger that a study backs: their words are made from the study's numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

Numbers: TypeAlias = dict[str, Any]  # what a study measured, as its file has it
MARK = "✓"


class Line(NamedTuple):
    """What a row says about some networks."""

    networks: str
    verdict: str
    measured: str


@dataclass(frozen=True)
class Row:
    """A claim of a paper.

    Attributes:
        claim: as the first cell has it.
        lines: what the numbers say of it, a line for each group of networks.
    """

    claim: str
    lines: Callable[[Numbers], list[Line]]


@dataclass(frozen=True)
class Study:
    """Numbers that belong together, and the rows and tables that are written from them.

    Attributes:
        name: of the study, as the command takes it.
        measure: makes the numbers. Values of single seeds or draws are kept, so that error bars can be made again.
        rows: of the ledger.
        repeats: how many seeds or draws there are; 0 of what chance has no part in.
        tables: by page, the tables of :mod:`pages` that are made from the numbers, by the names of their places.
    """

    name: str
    measure: Callable[[], Numbers]
    rows: tuple[Row, ...]
    repeats: int
    tables: Mapping[str, Callable[[Numbers], dict[str, str]]] = field(default_factory=dict)

    @property
    def command(self) -> str:
        return f"`python benchmarks/ledger.py {self.name}`"

    def written(self, row: Row, numbers: Numbers) -> list[str]:
        """The lines of the ledger's table."""
        claims = [row.claim]
        made = []
        for line in row.lines(numbers):
            cells = [claims.pop() if claims else "", line.networks, line.verdict, f"{line.measured} {MARK}"]
            made.append("| " + " | ".join([*cells, self.command]).lstrip() + " |")
        return made
