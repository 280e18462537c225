"""Confidence of modules in their channels: bootstrap stability over blocks of pairs."""

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
from ..base.display.text import counted
from ..base.errors import ProbeError, number
from ..generator.results import kind_of
from ..generator.units import UnitSet
from .clustering import (
    NO_MODULE,
    Array,
    Floats,
    Labels,
    Method,
    compare_labels,
    factorise_quickly,
    factorising,
    most_modules,
)
from .evidence.distances import noise_free_distances
from .evidence.gaps import Gaps, gaps
from .evidence.result import Evidence, evidence_for
from .features import MapFeatures

# A module is a unit set or, of maps given as an array, which names no layer, the numbers of its rows.
Module: TypeAlias = "UnitSet | tuple[int, ...]"

BLOCKS = 32  # of pairs: enough for any number of resamples
RESAMPLES = 30
CONFIDENT = 0.9  # a channel of at least this confidence counts as confident
# Below this expected ARI against another sample of latents, a warning is given.
ENOUGH = 0.8
_TOGETHER = 10  # resamples whose maps are held at once, so that 30 resamples read the blocks 3 times, not 30
_TOLERANCE = 3e-4  # of NMF: 99.6 % of the labels are those of 1e-4, in three quarters of the time
# 1 − ARI falls about as this power of the number of pairs, on a pretrained DCGAN.
_POWER = 0.4


class ExpectedDisagreement(UserWarning):
    """Another sample of latents is expected to give different modules."""


@dataclass(frozen=True)
class Confidence:
    """Bootstrap stability of a partition, over resampled blocks of pairs.

    Attributes:
        stability: (channels,) share of the resamples in which a channel keeps its module; NaN where it has none.
        ari: (resamples,) adjusted Rand index of each resample's modules against those of all pairs.
    """

    stability: Array
    ari: Array


class Assigned(NamedTuple):
    """Modules of the confident channels alone.

    Attributes:
        labels: (channels,) their module, −1 for all others.
        modules: unit sets of these channels alone, or row numbers where maps named no layer.
    """

    labels: Labels
    modules: tuple[Module, ...]


def module_table(names: Sequence[str], labels: Labels, confidence: Array | None, kind: str) -> Table:
    """A row for each module: how many units of this kind it has and, where that is known, how many are confident."""
    rows = []
    for k, name in enumerate(names):
        members = labels == k
        cells = [name, str(int(members.sum()))]
        if confidence is not None:
            mean = f"{confidence[members].mean():.2f}" if members.any() else "–"
            cells += [str(int((confidence[members] >= CONFIDENT).sum())), mean]
        rows.append(tuple(cells))
    confident = (f"confident (≥ {CONFIDENT:g})", "mean confidence") if confidence is not None else ()
    head = ("module", f"{kind}s", *confident)
    return Table(head, tuple(rows))


def unit_records(
    units: Sequence[str], names: Sequence[str], labels: Labels, weights: Floats, confidence: Array | None
) -> Iterator[dict[str, Any]]:
    """A row for each unit: its module, its weight there and, where that is known, its confidence."""
    for row, (unit, k) in enumerate(zip(units, labels.tolist(), strict=True)):
        placed = k >= 0
        yield {
            "units": unit,
            "module": names[k] if placed else None,
            "weight": float(weights[row, k]) if placed else None,
            "confidence": float(confidence[row]) if placed and confidence is not None else None,
        }


def measure_confidence(
    blocks: Tensor,
    partitions: Sequence[tuple[int, Labels]],
    features: MapFeatures,
    *,
    method: Method,
    seed: int,
    resamples: int = RESAMPLES,
) -> list[Confidence]:
    """Cluster maps of bootstrap resamples, each of half as many blocks; for each partition, its number of modules and
    its labels, of which all leave out the same channels.

    Half, because the difference between two independent samples of N pairs has twice the variance of one, and so does
    that between a resample of N/2 pairs and all N. Call inside :func:`clustering.factorising`.
    """
    placed = partitions[0][1] >= 0
    sets, number, *size = blocks.shape

    def once(sums: Tensor, resample: int) -> list[tuple[Array, float]]:
        # Features do not depend on a map's scale, so a sum serves as a mean.
        rows = features.resampled_rows(sums.view(sets, *size).double().numpy(), resample)
        alive = placed & rows.any(1)
        most = most_modules(rows[alive], method)  # too few distinct maps reproduce no module
        numbers = sorted({k for k, _ in partitions if k <= most})
        found = factorise_quickly(rows[alive], numbers, method, seed, tolerance=_TOLERANCE) if numbers else []
        resampled = dict(zip(numbers, found, strict=True))
        comparisons = []
        for k, labels in partitions:
            same, ari = np.zeros(sets), 0.0
            if k in resampled:
                same[alive], ari = compare_labels(labels[alive], resampled[k][0], k)
            comparisons.append((same, ari))
        return comparisons

    weights = torch.from_numpy(np.stack([block_counts(number, seed, resample) for resample in range(resamples)]))
    compared: list[list[tuple[Array, float]]] = []
    # In parallel, one thread each, because small factorisations are memory-bound.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for some in torch.split(weights.to(blocks.dtype), _TOGETHER):
            numbers = range(len(compared), len(compared) + len(some))
            compared += pool.map(once, torch.matmul(some, blocks.flatten(2)).unbind(1), numbers)
    measured = []
    for partition in zip(*compared, strict=True):
        stability = np.mean([same for same, _ in partition], axis=0)
        stability[~placed] = np.nan
        measured.append(Confidence(stability, np.array([ari for _, ari in partition])))
    return measured


def block_counts(number: int, seed: int, resample: int) -> Array:
    """How often each block is in a resample of half as many, with replacement."""
    chosen = np.random.default_rng([seed, resample]).integers(number, size=number // 2)
    return np.bincount(chosen, minlength=number).astype(np.float64)


def pairs_for(n_pairs: int, ari: float, wanted: float = ENOUGH) -> int:
    """About how many pairs it takes to reach an ARI, rounded up to a power of two."""
    if ari >= wanted:
        return n_pairs
    factor = ((1 - ari) / (1 - wanted)) ** (1 / _POWER)
    return int(2 ** ceil(log2(n_pairs * factor)))


def advice(n_pairs: int, ari: float, kind: str) -> str:
    """What an expected ARI below :data:`ENOUGH` means, and what to do about it."""
    if not n_pairs:  # unknown for maps in an array
        return (
            f"another sample of latents is expected to give other modules (adjusted Rand index {ari:.2f}; below "
            f"{ENOUGH}); trust the {kind}s of .assigned(0.9) alone, or take more pairs"
        )
    return (
        f"another sample of {counted(n_pairs, 'pair')} is expected to give other modules (adjusted Rand index "
        f"{ari:.2f}; below {ENOUGH}); trust the {kind}s of .assigned(0.9) alone, or take about "
        f"{pairs_for(n_pairs, ari):,} pairs"
    )


class Confident(ABC):
    """The part of a :class:`ModuleFinder` that measures how far its modules can be trusted, for maps with blocks."""

    labels_: Labels
    names_: tuple[str, ...]
    n_modules: int
    method: Method
    seed: int
    provenance_: dict[str, Any]
    variance_explained_: float
    _features: MapFeatures
    _blocks: Tensor | None
    _confidence: Confidence | None
    _gaps: Gaps | None  # around the modules, for the evidence
    _pairs: int  # of a channel's map; with a tolerance, of the median channel's

    @abstractmethod
    def require_fit(self) -> None:
        """Raise a ProbeError if the finder is not fitted."""

    @abstractmethod
    def grouped(self, labels: Labels) -> tuple[Module, ...]:
        """Channels by label."""

    @property
    def confidence_(self) -> Array:
        """(channels,) bootstrap stability: the share of resamples in which a channel keeps its module.

        A resample has half as many blocks of pairs, so that this is how often another sample of as many pairs would
        agree; NaN for a channel of no module.
        """
        return self._resampled().stability

    @property
    def expected_ari_(self) -> float:
        """The expected adjusted Rand index against the modules of another sample of as many pairs."""
        return float(self._resampled().ari.mean())

    @property
    def evidence_(self) -> Evidence:
        """Whether the modules are apart from one another, or pieces of a continuum: a gap and a p-value for each.

        >>> finder.evidence_.apart  # doctest: +SKIP
        """
        self.require_fit()
        if self._gaps is None:
            if self._blocks is None:
                raise ProbeError(
                    "evidence needs the noise of the maps, from sums over blocks of pairs, and these maps hold none; "
                    "fit maps made with attribute(..., blocks=32), and read .evidence_ before .save()"
                )
            self._gaps = gaps(_distances_of(self._features, self._blocks), self.labels_, self.n_modules)
        return evidence_for(self._gaps, self.labels_, self.names_, self.provenance_)

    def assigned(self, confidence: float = 0.9) -> Assigned:
        """The channels of at least this confidence: their labels, −1 for all others, and the modules of these alone.

        >>> cp.Hybridizer(gen, "main.8").hybridize(z1, z2, units=finder.assigned(0.9).modules)  # doctest: +SKIP
        """
        measured, least = self.confidence_, number(confidence, "confidence")
        confident = measured >= least  # a NaN is not
        if not confident.any():
            raise ProbeError(
                f"no {kind_of(self.provenance_)} has a confidence of {least:g} or more, and the largest is "
                f"{np.nanmax(measured):.2f}; make maps of more pairs, or lower the threshold"
            )
        labels = np.where(confident, self.labels_, NO_MODULE)
        return Assigned(labels, self.grouped(labels))

    def _resampled_like(self, other: Confident) -> bool:
        """Whether a resample gives both the same rows to cluster."""
        return (
            self._confidence is None
            and self._blocks is other._blocks
            and (self._features, self.method, self.seed) == (other._features, other.method, other.seed)
            and np.array_equal(self.labels_ >= 0, other.labels_ >= 0)
        )

    def _resampled(self) -> Confidence:
        self.require_fit()
        if (found := self._confidence) is None:
            if self._blocks is None:
                raise ProbeError(
                    "confidence is measured on sums over blocks of pairs, and these maps hold none; fit maps made with "
                    "attribute(..., blocks=32), and read .confidence_ before .save()"
                )
            (found,) = _measure_alike([self], self._blocks)
            if self.expected_ari_ < ENOUGH:
                said = advice(self._pairs, self.expected_ari_, kind_of(self.provenance_))
                warnings.warn(said, ExpectedDisagreement, stacklevel=3)
        return found


def measure_together(finders: Sequence[Confident]) -> None:
    """Measure the confidence of those finders that have not yet, of one sample's maps on the same resamples."""
    for first in finders:
        if first._confidence is None and first._blocks is not None:
            _measure_alike([finder for finder in finders if finder._resampled_like(first)], first._blocks)


def _measure_alike(finders: Sequence[Confident], blocks: Tensor) -> list[Confidence]:
    first = finders[0]
    with factorising():
        measured = measure_confidence(
            blocks,
            [(finder.n_modules, finder.labels_) for finder in finders],
            first._features,
            method=first.method,
            seed=first.seed,
        )
    distances = _distances_of(first._features, blocks)
    for finder, confidence in zip(finders, measured, strict=True):
        finder._confidence = confidence
        finder._gaps = gaps(distances, finder.labels_, finder.n_modules)
        finder._blocks = None  # many times the memory of the maps, and not needed again
    return measured


def _distances_of(features: MapFeatures, blocks: Tensor) -> Array:
    """Between channels: of the maps themselves where modules are of their bits, in which small distances are lost."""
    smooth = MapFeatures("l2", features.window) if features.kind == "bits" else features
    return noise_free_distances(blocks, smooth.rows)
