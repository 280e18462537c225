"""The result of a check, and the report of all checks."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Literal

from ..base.errors import visible

Outcome = Literal["passed", "failed", "skipped"]


class Failed(Exception):
    """The adapter lacks a property; the message says what to change."""


class Skipped(Exception):
    """The check does not apply; the message says why."""


@dataclass(frozen=True)
class Check:
    """One check: its name, its outcome, and a sentence that says what was observed or what to change."""

    name: str
    outcome: Outcome
    explanation: str


@dataclass(frozen=True, repr=False)
class AdapterReport:
    """All checks of one adapter, in the order in which they ran; prints itself.

    Attributes:
        generator: the adapter's name.
        layers: the layers that hybrids were made in.
        checks: the result of each check.
    """

    generator: str
    layers: tuple[str, ...]
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return not self.failures

    @property
    def failures(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.outcome == "failed")

    def __getitem__(self, name: str) -> Check:
        """The check of this name."""
        return {check.name: check for check in self.checks}[name]

    def __repr__(self) -> str:
        counts = [
            f"{number} {outcome}"
            for outcome in ("passed", "failed", "skipped")
            if (number := sum(check.outcome == outcome for check in self.checks))
        ]
        lines = [f"AdapterReport({self.generator!r}, {', '.join(counts)}; layers {', '.join(self.layers)})"]
        for check in self.checks:
            text = f"{check.outcome:7}  {check.name}: {check.explanation}"
            lines.append(textwrap.fill(text, 118, initial_indent="  ", subsequent_indent=" " * 11))
        return visible("\n".join(lines))
