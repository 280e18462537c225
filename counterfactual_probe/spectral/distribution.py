"""The distribution of ratios, gathered block by block, so that no array of all of them is ever needed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

BELOW, ABOVE = 0.9, 1.45  # S002 §4.2
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

# Bins of 1/400 up to 8, and of a quarter of a percent beyond: a ratio is at most the number of lags.
_FINE, _PER_ONE, _FAR, _COARSE = 8.0, 400, 4096.0, 2496
_N_FINE = int(_FINE * _PER_ONE)
EDGES: npt.NDArray[np.float64] = np.concatenate(
    [np.linspace(0, _FINE, _N_FINE + 1), np.geomspace(_FINE, _FAR, _COARSE + 1)[1:]]
)
BINS = len(EDGES) - 1


@dataclass
class Gatherer:
    """Counts and moments of the ratios added so far."""

    count: int = 0
    dead: int = 0
    total: float = 0.0
    squares: float = 0.0
    below: int = 0
    above: int = 0
    least: float = math.inf
    largest: float = -math.inf

    def __post_init__(self) -> None:
        self.histogram = torch.zeros(BINS, dtype=torch.int64)

    def add(self, ratios: Tensor) -> None:
        """Add ratios of any shape; NaNs are counted as dead and left out of everything else."""
        values = ratios.reshape(-1)
        total = float(values.sum())
        if math.isnan(total):
            alive = ~torch.isnan(values)
            self.dead += int((~alive).sum())
            values = values[alive]
            total = float(values.sum())
        if not len(values):
            return
        least, largest = map(float, values.aminmax())
        squares = float(values.dot(values)) - 2 * total + len(values)
        self._note(len(values), total - len(values), squares, least, largest)
        self.below += int((values < BELOW).sum())
        self.above += int((values > ABOVE).sum())
        # 32 bits: half the memory to go through, which is what takes the time.
        bins = (values * _PER_ONE).to(torch.int32)
        if largest >= _FINE:
            _beyond(values, bins)
        self.histogram += torch.bincount(bins, minlength=BINS)

    def add_ones(self, count: int, dead: int) -> None:
        """Add as many ratios of exactly 1, and dead ones."""
        self.dead += dead
        if count:
            self._note(count, 0.0, 0.0, 1.0, 1.0)
            self.histogram[_PER_ONE] += count

    def _note(self, count: int, total: float, squares: float, least: float, largest: float) -> None:
        self.count += count
        self.total += total
        self.squares += squares
        self.least, self.largest = min(self.least, least), max(self.largest, largest)

    def summary(self) -> dict[str, Any]:
        """Mean, spread, shares and quantiles; None where nothing is alive, which JSON can say and NaN it cannot."""
        row: dict[str, Any] = {"alive": self.count, "dead": self.dead}
        if not self.count:
            names = ("mean", "std", "share_below", "share_above", "least", "largest", *map(quantile_name, QUANTILES))
            return row | dict.fromkeys(names)
        mean = self.total / self.count
        row |= {"mean": 1 + mean, "std": math.sqrt(max(0.0, self.squares / self.count - mean**2))}
        row |= {"share_below": self.below / self.count, "share_above": self.above / self.count}
        row |= {"least": self.least, "largest": self.largest}
        values = quantiles(self.histogram, QUANTILES)
        # Within a bin the place is not known; never outside of what was seen.
        return row | {
            quantile_name(q): min(max(value, self.least), self.largest)
            for q, value in zip(QUANTILES, values, strict=True)
        }


def summary_facts(summary: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """A summary in words, for a result's description."""
    if summary["mean"] is None:
        return (("ratios", "none: all are dead"),)
    return (
        ("mean ± std", f"{summary['mean']:.3f} ± {summary['std']:.3f}"),
        (f"below {BELOW:g}, above {ABOVE:g}", f"{summary['share_below']:.1%}, {summary['share_above']:.1%}"),
        ("quantiles", ", ".join(f"{100 * q:g} %: {summary[quantile_name(q)]:.2f}" for q in QUANTILES)),
        ("range", f"{summary['least']:.3g} to {summary['largest']:.3g}"),
    )


def quantile_name(q: float) -> str:
    return f"q{100 * q:02.0f}"


def quantiles(histogram: Tensor, levels: Sequence[float]) -> list[float]:
    """Quantiles of a histogram over :data:`EDGES`, to the width of a bin."""
    cumulated = np.concatenate([[0.0], np.cumsum(histogram.numpy())])
    if cumulated[-1] == 0:
        return [math.nan] * len(levels)
    values = []
    for level in levels:
        target = level * cumulated[-1]
        place = int(np.searchsorted(cumulated, target, side="left"))
        place = min(max(place, 1), BINS)
        inside = (target - cumulated[place - 1]) / max(cumulated[place] - cumulated[place - 1], 1)
        values.append(float(EDGES[place - 1] + inside * (EDGES[place] - EDGES[place - 1])))
    return values


def _beyond(values: Tensor, bins: Tensor) -> None:
    """Put the bins of ratios beyond the fine ones right."""
    far = values >= _FINE
    share = (values[far] / _FINE).log() / math.log(_FAR / _FINE)
    bins[far] = (_N_FINE + (share * _COARSE).to(torch.int32)).clamp_(max=BINS - 1)
