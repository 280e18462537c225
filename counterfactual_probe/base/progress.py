"""One progress bar for all long runs: on stderr, and silent unless asked for."""

from __future__ import annotations

import sys

from tqdm.auto import tqdm

_SECONDS_BETWEEN_LINES = 10.0  # in a log, where every refresh is kept


def progress_bar(total: int, description: str, unit: str, show: bool) -> tqdm:
    interval = 0.1 if sys.stderr.isatty() else _SECONDS_BETWEEN_LINES
    return tqdm(total=total, desc=description, unit=unit, disable=not show, mininterval=interval)
