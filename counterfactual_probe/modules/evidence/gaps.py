"""Gaps between modules, compared with what chance leaves between neighbours on a line.

For each channel of a module, a is the distance to its nearest neighbour in the module and b to the nearest channel
outside. The gap is the 5 % quantile of b over the 90 % quantile of a: a module that ends where the next one begins has
a small one, and quantiles forgive some channels in between. Its null is a continuum without gaps: as many channels at
random on a line, cut at any place. Of all continua this one has the largest gaps, because a module has only one
neighbour across the cut; in a plane it has many, and their nearest is nearer.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

from ..clustering import Array, Labels

CONTROLS = 999
LEAST = 3  # channels: of fewer, no distance inside the module can be told from the one across
_INSIDE, _ACROSS = 0.9, 0.05


class Gaps(NamedTuple):
    """(K,) the gap around each module, and its p-value; NaN and 1 of a module that is too small or alone."""

    ratio: Array
    p_values: Array


def gaps(distances: Array, labels: Labels, k: int) -> Gaps:
    """Of the distances between all channels; those without a module are left out."""
    placed = labels >= 0
    distances, labels = distances[np.ix_(placed, placed)], labels[placed]
    ratio, p_value = np.full(k, np.nan), np.ones(k)
    for module in range(k):
        members = labels == module
        if LEAST <= members.sum() < len(labels):
            inside = distances[np.ix_(members, members)].min(1)
            across = distances[np.ix_(members, ~members)].min(1)
            ratio[module] = _gap(inside, across)
            controls = line_gaps(int(members.sum()))
            p_value[module] = (1 + (controls >= ratio[module]).sum()) / (1 + len(controls))
    return Gaps(ratio, p_value)


@cache
def line_gaps(n: int) -> Array:
    """(controls,) gaps of n channels at random on a line, whose neighbours are just across its one end.

    Spacings of random places are exponential, whatever the density: a gap is a ratio.
    """
    spacings = np.random.default_rng(n).exponential(size=(CONTROLS, n))
    across, between = np.cumsum(spacings, axis=1), spacings[:, 1:]
    end = np.full((CONTROLS, 1), np.inf)
    inside = np.minimum(np.concatenate([end, between], 1), np.concatenate([between, end], 1))
    return np.asarray(_gap(inside, across))


def _gap(inside: Array, across: Array) -> Array:
    width = np.quantile(inside, _INSIDE, axis=-1)
    gap = np.quantile(across, _ACROSS, axis=-1)
    # Channels that are all the same have no width, and a gap if anything else is at a distance.
    return np.divide(gap, width, out=np.where(gap > 0, np.inf, 1.0), where=width > 0)
