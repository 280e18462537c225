"""One progress bar for all long runs: on stderr or in the notebook, and silent unless asked for."""

from __future__ import annotations

import sys
import warnings

from tqdm import TqdmWarning

with warnings.catch_warnings():  # in a notebook without ipywidgets, whose bar is one of text
    warnings.simplefilter("ignore", TqdmWarning)
    from tqdm.auto import tqdm

_SECONDS = 0.1
_SECONDS_BETWEEN_LINES = 10.0  # in a log, where every refresh is kept


def progress_bar(total: int, description: str, unit: str, show: bool) -> tqdm:
    """A bar that is drawn anew as time passes, however many units an update brings."""
    interval = _SECONDS if _redraws() else _SECONDS_BETWEEN_LINES
    # miniters: by default tqdm waits for as many units as came at the fastest, and a bar stands still.
    return tqdm(total=total, desc=description, unit=unit, disable=not show, mininterval=interval, miniters=1)


def _redraws() -> bool:
    """Whether a bar replaces itself: in a terminal, and in a notebook, whose stderr is no terminal."""
    return sys.stderr.isatty() or type(sys.stderr).__module__.partition(".")[0] == "ipykernel"
