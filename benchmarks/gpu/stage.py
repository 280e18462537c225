"""Stages of the command: each gives rows or says why it gives none, within the time that is left."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch

Row: TypeAlias = dict[str, Any]


class Skipped(Exception):
    """What cannot be measured here, and why."""


@dataclass
class Bench:
    """Where and how everything is measured.

    Attributes:
        small: sizes at which the whole command takes a minute on a CPU: a smoke test, not a result.
        seconds: that the whole command may take; a stage begins only while some are left.
    """

    device: torch.device
    small: bool = False
    seconds: float = 540.0
    began: float = field(default_factory=time.monotonic)

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def left(self) -> float:
        return self.seconds - (time.monotonic() - self.began)

    def require_gpu(self, why: str) -> None:
        if not self.on_gpu:
            raise Skipped(f"{why}; this ran on {self.device}")

    def synchronize(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    def timed(self, work: Callable[[], Any]) -> float:
        """Seconds until the device has done it."""
        self.synchronize()
        start = time.perf_counter()
        work()
        self.synchronize()
        return time.perf_counter() - start


@dataclass(frozen=True)
class Stage:
    """One part of the command, and roughly how long it takes at full size."""

    name: str
    run: Callable[[Bench], Iterable[Row]]
    seconds: float = 10.0


@dataclass
class Outcome:
    """What became of a stage: "done", "skipped", "failed" or "too late", its rows, and why there are no more."""

    stage: str
    state: str = "done"
    rows: list[Row] = field(default_factory=list)
    why: str = ""
    seconds: float = 0.0

    def lines(self) -> list[str]:
        """The outcome as text: a heading, and a line for each row."""
        head = f"== {self.stage}: {self.state}, {self.seconds:.1f} s"
        return [head + (f" ({self.why})" if self.why else ""), *map(shown, self.rows)]


def shown(row: Row) -> str:
    """A row as a line: its name, then each figure with what it is."""
    figures = {name: value for name, value in row.items() if name != "name"}
    return f"  {row['name']:<46} " + "  ".join(f"{name} {_figure(value)}" for name, value in figures.items())


def _figure(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def outcome_of(stage: Stage, bench: Bench) -> Outcome:
    """Run a stage; rows that came before a failure are kept."""
    made = Outcome(stage.name)
    if bench.left < (0 if bench.small else stage.seconds):
        made.state, made.why = (
            "too late",
            f"{max(0.0, bench.left):.0f} s are left, and it takes about {stage.seconds:.0f}",
        )
        return made
    start = time.monotonic()
    try:
        for row in stage.run(bench):
            made.rows.append(row)
    except Skipped as skipped:
        made.state, made.why = "skipped", str(skipped)
    except Exception as error:  # the stages after it still run
        last = traceback.extract_tb(error.__traceback__)[-1]
        made.state = "failed"
        made.why = f"{type(error).__name__} at {last.filename.rpartition('/')[2]}:{last.lineno}: {str(error)[:300]}"
    made.seconds = time.monotonic() - start
    return made
