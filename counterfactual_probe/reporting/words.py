"""Numbers in words, for the sentences of reports and commands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..modules.confidence import CONFIDENT, ENOUGH
from ..registry.naming import RELATED_FROM

if TYPE_CHECKING:
    from ..base.html import Level
    from ..modules.evidence import Evidence


def percent(share: float) -> str:
    """'12 %' of 0.123."""
    return f"{100 * share:.0f} %"


def listing(items: Sequence[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def reproducible_words(ari: float) -> tuple[str, Level]:
    """What modules are by their expected adjusted Rand index, and how good that is.

    >>> reproducible_words(0.85), reproducible_words(0.5), reproducible_words(0.1)
    (('reproducible', 'good'), ('partly reproducible', 'fair'), ('not reproducible', 'poor'))
    >>> reproducible_words(float("nan"))  # of channels that are all in one module
    ('one group', 'poor')
    """
    if np.isnan(ari):
        return "one group", "poor"
    if ari >= ENOUGH:
        return "reproducible", "good"
    return ("partly reproducible", "fair") if ari >= RELATED_FROM else ("not reproducible", "poor")


def kept_sentence(kept: float, ari: float, sizes: Sequence[int]) -> str:
    """How many channels would keep their module, in a sentence for someone new to this.

    Beside it stands how many would by chance, in modules of the same sizes: one in which nearly all are keeps most.
    """
    if np.isnan(ari):
        return "All channels are in one module: none acts on a part of the image that the others leave alone."
    chance = sum((size / sum(sizes)) ** 2 for size in sizes)
    return (
        f"With other random images, {percent(kept)} of the channels are expected to end up in the same module, and "
        f"{percent(chance)} would by chance (adjusted Rand index {ari:.2f})."
    )


def apart_sentence(evidence: Evidence) -> str:
    """Whether the groups are parts or pieces of a continuum, in a sentence for someone new to this."""
    if len(evidence.names) < 2 or not (evidence.sizes > 0).all():
        return ""
    return evidence.sentence


def confident_words(stability: npt.NDArray[np.floating[Any]]) -> str:
    """How many channels have a confident module, by their bootstrap stability; NaN for those without a module."""
    placed = np.isfinite(stability)
    confident = int((stability[placed] >= CONFIDENT).sum())
    return (
        f"{confident} of {int(placed.sum())} channels are confident: they stay in their module in {percent(CONFIDENT)} "
        "or more of the"
    )


def ari_words(ari: float) -> str:
    """The adjusted Rand index between two samples of latents, in words a newcomer understands."""
    if np.isnan(ari):
        return "unknown (not computed)"
    if ari >= 0.9:
        return "nearly the same modules"
    if ari >= 0.7:
        return "mostly the same modules; some channels change modules"
    if ari >= RELATED_FROM:
        return "related modules; many channels change modules, so do not trust single channels"
    if ari >= 0.15:
        return "weakly related modules; another sample of latents groups most channels differently"
    return "unrelated modules; this grouping depends on which latents happened to be sampled"
