"""How sure modules are of their channels, from the blocks of pairs behind the maps."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil, log2
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..base.errors import ProbeError
from ..generator.units import UnitSet
from .clustering import Array, Labels, Method, agreement, factorise_quickly
from .features import Features

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
    modules: tuple[UnitSet | tuple[int, ...], ...]


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
    return (
        f"another draw of {n_pairs} pairs is expected to give other modules (adjusted Rand index {ari:.2f}; below "
        f"{ENOUGH}); trust the channels of .assigned(0.9) alone, or take about {pairs_for(n_pairs, ari):,} pairs"
    )
