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
    """The adjusted Rand index between two samples of latents, in words a newcomer understands."""
    if np.isnan(ari):
        return "unknown (not computed)"
    if ari >= 0.9:
        return "nearly the same modules"
    if ari >= 0.7:
        return "mostly the same modules; some channels change modules"
    if ari >= 0.4:
        return "related modules; many channels change modules, so do not trust single channels"
    if ari >= 0.15:
        return "weakly related modules; another sample of latents groups most channels differently"
    return "unrelated modules; this grouping depends on which latents happened to be sampled"
