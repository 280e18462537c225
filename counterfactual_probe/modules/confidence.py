"""How sure modules are of their channels, from the blocks of pairs behind the maps."""

from __future__ import annotations

import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil, log2
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ..base.display.description import Table
from ..base.errors import ProbeError, number
from ..generator.units import UnitSet
from .clustering import NO_MODULE, Array, Floats, Labels, Method, agreement, factorise_quickly, factorising
from .features import Features

# A module is a unit set or, of maps given as an array, which names no layer, the numbers of its rows.
Module: TypeAlias = "UnitSet | tuple[int, ...]"

BLOCKS = 32  # of pairs: enough for any number of resamples
RESAMPLES = 30
SURE = 0.9  # the confidence from which on a channel is taken as sure
# What another draw of latents is expected to repeat should reach this, or a warning is given.
ENOUGH = 0.8
_TOGETHER = 10  # resamples whose maps are held at once: all sums then read the blocks thrice and not thirty times
_TOLERANCE = 3e-4  # of NMF: 99.6 % of the labels are those of 1e-4, in three quarters of the time
# 1 − ARI falls about as this power of the number of pairs, on a pretrained DCGAN.
_POWER = 0.4


class ExpectedDisagreement(UserWarning):
    """Another draw of latents is expected to give other modules."""


@dataclass(frozen=True)
class Confidence:
    """What resampled blocks of pairs say of a partition.

    Attributes:
        kept: (channels,) share of the resamples in which a channel keeps its module; NaN where it has none.
        ari: (resamples,) adjusted Rand index of each resample's modules against those of all pairs.
    """

    kept: Array
    ari: Array


class Assigned(NamedTuple):
    """Modules of the channels that are sure.

    Attributes:
        labels: (channels,) their module, −1 for all others.
        modules: unit sets of these channels alone, or row numbers where maps named no layer.
    """

    labels: Labels
    modules: tuple[Module, ...]


def module_table(names: Sequence[str], labels: Labels, kept: Array | None) -> Table:
    """A row for each module: how many channels it has and, where that is known, how many are confident."""
    rows = []
    for k, name in enumerate(names):
        own = labels == k
        cells = [name, str(int(own.sum()))]
        if kept is not None:
            mean = f"{kept[own].mean():.2f}" if own.any() else "–"
            cells += [str(int((kept[own] >= SURE).sum())), mean]
        rows.append(tuple(cells))
    head = ("module", "channels", *((f"confident ({SURE:g})", "mean confidence") if kept is not None else ()))
    return Table(head, tuple(rows))


def channel_records(
    channels: Sequence[str], names: Sequence[str], labels: Labels, weights: Floats, kept: Array | None
) -> Iterator[dict[str, Any]]:
    """A row for each channel: its module, its weight there and, where that is known, its confidence."""
    for row, (channel, k) in enumerate(zip(channels, labels.tolist(), strict=True)):
        placed = k >= 0
        yield {
            "units": channel,
            "module": names[k] if placed else None,
            "weight": float(weights[row, k]) if placed else None,
            "confidence": float(kept[row]) if placed and kept is not None else None,
        }


def measure_confidence(
    blocks: Tensor,
    labels: Labels,
    features: Features,
    *,
    n_modules: int,
    method: Method,
    seed: int,
    resamples: int = RESAMPLES,
) -> Confidence:
    """Cluster maps of half the blocks, drawn with replacement, again and again.

    Half, because two independent draws of N pairs differ by twice the variance of one, and a resample
    of N/2 differs from its own mean by as much. Call inside :func:`clustering.factorising`.
    """
    placed = labels >= 0
    sets, number, height, width = blocks.shape

    def once(sums: Tensor) -> tuple[Array, float]:
        # Features do not see how a map is scaled, so a sum will do for a mean.
        rows = features.rows(sums.view(sets, height, width).double().numpy())
        alive = placed & rows.any(1)
        same = np.zeros(sets)
        try:
            found = factorise_quickly(rows[alive], n_modules, method, seed, tolerance=_TOLERANCE)[0]
        except ProbeError:  # too few different maps are left: none of the modules came back
            return same, 0.0
        same[alive], ari = agreement(labels[alive], found, n_modules)
        return same, ari

    weights = torch.from_numpy(np.stack([_drawn(number, seed, resample) for resample in range(resamples)]))
    found: list[tuple[Array, float]] = []
    # One thread each, side by side, as small factorisations are bound by memory.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for some in torch.split(weights.to(blocks.dtype), _TOGETHER):
            found += pool.map(once, torch.matmul(some, blocks.flatten(2)).unbind(1))
    kept = np.mean([same for same, _ in found], axis=0)
    kept[~placed] = np.nan
    return Confidence(kept, np.array([ari for _, ari in found]))


def _drawn(number: int, seed: int, resample: int) -> Array:
    """How often each block is in a resample of half as many, with replacement."""
    chosen = np.random.default_rng([seed, resample]).integers(number, size=number // 2)
    return np.bincount(chosen, minlength=number).astype(np.float64)


def pairs_for(n_pairs: int, ari: float, wanted: float = ENOUGH) -> int:
    """About how many pairs it takes to get to an ARI, rounded up to a power of two."""
    if ari >= wanted:
        return n_pairs
    factor = ((1 - ari) / (1 - wanted)) ** (1 / _POWER)
    return int(2 ** ceil(log2(n_pairs * factor)))


def advice(n_pairs: int, ari: float) -> str:
    """What to make of an expected ARI below :data:`ENOUGH`, and what to do."""
    if not n_pairs:  # maps in an array do not say
        return (
            f"another draw of latents is expected to give other modules (adjusted Rand index {ari:.2f}; below "
            f"{ENOUGH}); trust the channels of .assigned(0.9) alone, or take more pairs"
        )
    return (
        f"another draw of {n_pairs} pairs is expected to give other modules (adjusted Rand index {ari:.2f}; below "
        f"{ENOUGH}); trust the channels of .assigned(0.9) alone, or take about {pairs_for(n_pairs, ari):,} pairs"
    )


class Confident(ABC):
    """The part of a :class:`ModuleFinder` that says how sure its modules are, for maps with blocks."""

    labels_: Labels
    n_modules: int
    method: Method
    seed: int
    _features: Features
    _blocks: Tensor | None
    _confidence: Confidence | None
    _pairs: int  # of a channel's map; with a tolerance, of the median channel's

    @abstractmethod
    def require_fit(self) -> None:
        """Raise a ProbeError before the modules are found."""

    @abstractmethod
    def grouped(self, labels: Labels) -> tuple[Module, ...]:
        """Channels by label."""

    @property
    def confidence_(self) -> Array:
        """(channels,) share of resamples of half the pairs' blocks in which a channel keeps its module.

        It says how often another draw of as many pairs would agree; NaN for a channel of no module.
        """
        return self._resampled().kept

    @property
    def expected_ari_(self) -> float:
        """The adjusted Rand index to be expected against the modules of another draw of as many pairs."""
        return float(self._resampled().ari.mean())

    def assigned(self, confidence: float = 0.9) -> Assigned:
        """The channels at least so sure of their module: their labels, −1 for the rest, and the modules of these.

        >>> cp.Hybridizer(gen, "main.8").hybridize(z1, z2, units=finder.assigned(0.9).modules)  # doctest: +SKIP
        """
        kept, least = self.confidence_, number(confidence, "confidence")
        sure = kept >= least  # a NaN is not
        if not sure.any():
            raise ProbeError(
                f"no channel has a confidence of {least:g}, the largest is {np.nanmax(kept):.2f}; make maps of "
                "more pairs, or ask for less"
            )
        labels = np.where(sure, self.labels_, NO_MODULE)
        return Assigned(labels, self.grouped(labels))

    def _resampled(self) -> Confidence:
        self.require_fit()
        if self._confidence is None:
            if self._blocks is None:
                raise ProbeError(
                    "there are no sums over blocks of pairs, which say how sure modules are; fit maps made with "
                    "attribute(..., blocks=32), and ask for .confidence_ before .save()"
                )
            with factorising():
                self._confidence = measure_confidence(
                    self._blocks,
                    self.labels_,
                    self._features,
                    n_modules=self.n_modules,
                    method=self.method,
                    seed=self.seed,
                )
            self._blocks = None  # many times the room of the maps, and not needed again
            if self.expected_ari_ < ENOUGH:
                warnings.warn(advice(self._pairs, self.expected_ari_), ExpectedDisagreement, stacklevel=3)
        return self._confidence
