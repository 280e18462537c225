"""The region of a unit set: the pixels in which it makes the larger share of all that can change."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..modules.clustering import Array

_ALIKE = 1e-6  # shares that differ by less are the same, but for rounding


def region(influence: Array, of_all: Array) -> npt.NDArray[np.bool_]:
    """(pixels,) where a set's influence is a large share of that of all units together.

    >>> region(np.array([0.0, 0.1, 0.9, 1.0]), np.ones(4)).tolist()
    [False, False, True, True]

    Shares are cut in two where the variance between both parts is largest (N. Otsu 1979), each pixel weighted by the
    influence of all units: one that hardly changes hardly counts. Nothing, if the share is the same everywhere.
    """
    weight = np.where(of_all > 0, of_all, 0.0)
    shares = np.divide(influence, of_all, out=np.zeros_like(of_all), where=of_all > 0)
    order = np.argsort(shares, kind="stable")
    sorted_shares, mass = shares[order], np.cumsum(weight[order])
    moment = np.cumsum((weight * shares)[order])
    below, above = mass[:-1], mass[-1] - mass[:-1]
    cut = np.diff(sorted_shares) > _ALIKE * max(float(sorted_shares[-1]), np.finfo(np.float64).tiny)
    cut &= (below > 0) & (above > 0)
    if not cut.any():
        return np.zeros(len(shares), dtype=np.bool_)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * np.square(moment[:-1] / below - (moment[-1] - moment[:-1]) / above)
    place = int(np.where(cut, between, -1.0).argmax())
    return np.asarray(shares > sorted_shares[place])
