"""Numbers in words, for the sentences of reports and commands."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def percent(share: float) -> str:
    """'12 %' of 0.123."""
    return f"{100 * share:.0f} %"


def listing(items: Sequence[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def ari_words(ari: float) -> str:
    """The adjusted Rand index between two draws in words a newcomer understands."""
    if np.isnan(ari):
        return "unknown (not computed)"
    if ari >= 0.9:
        return "nearly the same modules"
    if ari >= 0.7:
        return "mostly the same modules; some channels change sides"
    if ari >= 0.4:
        return "related modules; many channels change sides, so do not trust single channels"
    if ari >= 0.15:
        return "weakly related modules; another draw of latents groups most channels otherwise"
    return "unrelated modules; this grouping is an accident of the draw"
