"""Levels of a network: all pairs of convolutions that work on one grid, with their ratios pooled.

Two networks of opposite directions, such as a decoder and an encoder, are compared level by level. This is common code
of the examples ``spectral_networks.py``, ``spectral_vae_sweep.py`` and ``spectral_dcgan_dropout.py``.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

import counterfactual_probe as cp
from counterfactual_probe.spectral import EDGES, SpectralTable
from counterfactual_probe.spectral.plots import plot_layers

Counts: TypeAlias = npt.NDArray[np.int64]

BAR = 0.05  # width of the figures' bars, the resolution of the mode
_BARS_END = 8.0  # bins have equal widths up to here


@dataclass(frozen=True)
class Level:
    """The ratios of all pairs of convolutions on one grid.

    Attributes:
        size: side of the maps that the finer kernel works on.
        rate: ratio of this side to that of the coarser grid; 1 if both kernels work on the same grid.
        pairs: names of the pairs of convolutions.
        histogram: counts over ``spectral.EDGES``.
        mean, std: over all ratios.
        below, above: shares of ratios < 0.9 and > 1.45.
    """

    size: int
    rate: int
    pairs: tuple[str, ...]
    histogram: Counts
    mean: float
    std: float
    below: float
    above: float

    @property
    def key(self) -> tuple[int, int]:
        """The same for corresponding levels of two networks; sorts from fine to coarse."""
        return -self.size, self.rate

    @property
    def name(self) -> str:
        return f"{self.size}×{self.size}" if self.rate == 1 else f"{self.size // self.rate}↔{self.size}"

    @property
    def mode(self) -> float:
        """The centre of the highest bar of the figures."""
        per_bar = round(BAR * np.searchsorted(EDGES, 1.0))
        n = int(np.searchsorted(EDGES, _BARS_END)) // per_bar * per_bar
        highest = int(self.histogram[:n].reshape(-1, per_bar).sum(1).argmax())
        return BAR * (highest + 0.5)

    @property
    def deviation(self) -> float:
        """√⟨(ρ − 1)²⟩: the distance from independence, by mean and spread together."""
        return float(np.hypot(self.std, self.mean - 1))


def levels(table: SpectralTable) -> list[Level]:
    """A network's levels, from fine to coarse; pairs that skip others, and dead ones, are left out."""
    groups: dict[tuple[int, int], list[int]] = {}
    for i, row in enumerate(table.rows):
        if not row["skip"] and row["alive"]:
            groups.setdefault((-row["size"][0], row["stride"][0]), []).append(i)
    return [_pooled(table, key, rows) for key, rows in sorted(groups.items())]


def _pooled(table: SpectralTable, key: tuple[int, int], indices: list[int]) -> Level:
    rows = [table.rows[i] for i in indices]
    weights = np.array([row["alive"] for row in rows], np.float64)

    def average(values: Sequence[float]) -> float:
        return float(np.average(values, weights=weights))

    mean = average([row["mean"] for row in rows])
    square = average([row["std"] ** 2 + (row["mean"] - mean) ** 2 for row in rows])
    return Level(
        size=-key[0],
        rate=key[1],
        pairs=tuple(f"{row['earlier']} → {row['later']}" for row in rows),
        histogram=table.histograms[indices].sum(0).numpy(),
        mean=mean,
        std=square**0.5,
        below=average([row["share_below"] for row in rows]),
        above=average([row["share_above"] for row in rows]),
    )


def shared(one: Sequence[Level], two: Sequence[Level]) -> list[tuple[Level, Level]]:
    """The levels that both networks have, from fine to coarse."""
    found = {level.key: level for level in two}
    return [(level, found[level.key]) for level in one if level.key in found]


def distance(one: Level, two: Level) -> float:
    """The Wasserstein-1 distance of two distributions of ratios (the area between their distribution functions)."""
    first, second = (np.cumsum(level.histogram) / level.histogram.sum() for level in (one, two))
    return float(np.sum(np.abs(first - second) * np.diff(EDGES)))


def by_chance(module: nn.Module, example: Any, *, draws: int, seed: int = 0) -> list[list[Level]]:
    """Levels of the same network with normal random kernels, ``draws`` times: a reference with independent kernels."""
    return [levels(table) for table in _random_tables(module, example, draws, seed)]


def _random_tables(module: nn.Module, example: Any, draws: int, seed: int) -> Iterator[SpectralTable]:
    twin = copy.deepcopy(module)
    rng = torch.Generator().manual_seed(seed)
    for _ in range(draws):
        with torch.no_grad():
            for part in twin.modules():
                if isinstance(part, (nn.Conv2d, nn.ConvTranspose2d)):
                    part.weight.copy_(torch.randn(part.weight.shape, generator=rng))
        yield cp.SpectralDependency(twin, example=example, name="random kernels").table()


def margin(level: Level, chance: Sequence[Sequence[Level]]) -> float:
    """The range of spreads over samples of random kernels: smaller differences are not significant."""
    spreads = [other.std for draw in chance for other in draw if other.key == level.key]
    return max(spreads, default=0.0) - min(spreads, default=0.0)


def told(difference: float, least: float = 0.0) -> str:
    """Whether a difference is positive, as claimed, or too small to be significant."""
    if abs(difference) <= least:
        return "is undecided here" + (f" (random kernels differ by as much, {least:.3f})" if least else "")
    return "holds here" if difference > 0 else "does not hold here"


def superimposed(networks: Sequence[Sequence[Level]], names: Sequence[str]) -> Any:
    """Histograms of several networks, one panel per level, from fine to coarse (S002 Figs 4, 5, 8 and 9)."""
    keys = sorted({level.key for found in networks for level in found})
    panels = [[_panel(found, key) for key in keys] for found in networks]
    figure, axes = plot_layers(panels, names, most=len(keys))
    titled_once(axes)
    return figure


def titled_once(axes: Sequence[Any]) -> None:
    """Remove repeated lines from titles of networks with the same architecture."""
    for ax in axes:
        lines = dict.fromkeys(line for line in ax.get_title().split("\n") if line)
        ax.set_title("\n".join(lines), fontsize="small")


def _panel(found: Sequence[Level], key: tuple[int, int]) -> tuple[str, Counts]:
    """A level's title and histogram; both are empty if the network has no such level."""
    for level in found:
        if level.key == key:
            more = f" and {len(level.pairs) - 1} more" if len(level.pairs) > 1 else ""
            return f"{level.pairs[0]}{more} ({level.name})", level.histogram
    return "", np.zeros(len(EDGES) - 1, np.int64)


def rows(network: str, found: Sequence[Level], chance: Sequence[Sequence[Level]] = ()) -> list[dict[str, Any]]:
    """A row of numbers for each level, with those of random kernels if they are given."""
    listed = []
    for i, level in enumerate(found):
        row: dict[str, Any] = {"network": network, "level": level.name, "pairs": "; ".join(level.pairs)}
        row |= {"pathways": int(level.histogram.sum()), "mean": level.mean, "std": level.std, "mode": level.mode}
        row |= {"share_below": level.below, "share_above": level.above}
        if chance:
            spreads = [draw[i].std for draw in chance]
            row |= {"random_std": float(np.mean(spreads)), "random_std_least": min(spreads)}
            row["random_std_largest"] = max(spreads)
        listed.append(row)
    return listed
