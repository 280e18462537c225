"""One progress bar for all long runs: on stderr, and silent unless asked for."""

from __future__ import annotations

from tqdm.auto import tqdm


def progress_bar(total: int, description: str, unit: str, show: bool) -> tqdm:
    return tqdm(total=total, desc=description, unit=unit, disable=not show)
