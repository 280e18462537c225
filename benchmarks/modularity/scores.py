"""Scores of labels: against the truth, against another sample, and by what exchanging the modules changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

import counterfactual_probe as cp
from counterfactual_probe.modules.clustering import assign

from .decoders import factor_names
from .methods import Floats, Labels
from .problem import Problem, Sample

_EQUAL = 1e-3  # of the distance between base and source: nearer images are the same


def matched_correlation(first: Floats, second: Floats) -> float:
    """Mean Pearson correlation of the templates (K, …) of two samples, matched one to one; 0 for one left over."""
    one, two = (standardised(templates.reshape(len(templates), -1)) for templates in (first, second))
    correlations = one @ two.T / one.shape[1]
    if len(one) > len(two):
        correlations = correlations.T
    return float(correlations[np.arange(len(correlations)), assign(correlations)].sum() / max(len(one), len(two)))


def standardised(rows: Floats) -> Floats:
    """Of mean 0 and variance 1; zeros for a flat row."""
    centred = rows - rows.mean(1, keepdims=True)
    spread = centred.std(1, keepdims=True)
    return np.asarray(centred / np.where(spread > 0, spread, 1))


def between_samples(samples: tuple[Sample, Sample], labels: tuple[Labels, Labels]) -> dict[str, float]:
    """How far the modules of two independent samples agree: channels, and places, as far as these are their own.

    ``agreement`` is the adjusted Rand index, but 0 where a sample has a single module: it always agrees with itself.
    """
    first, second = (sample.templates(some) - sample.common for sample, some in zip(samples, labels, strict=True))
    ari = float(adjusted_rand_score(*labels))
    several = min(len(members(some)) for some in labels) > 1
    return {"ari": ari, "agreement": ari if several else 0.0, "correlation": matched_correlation(first, second)}


def members(labels: Labels) -> list[list[int]]:
    """The channels of each module that has any."""
    return [np.flatnonzero(labels == k).tolist() for k in np.unique(labels[labels >= 0])]


def interchange(hybrids: Tensor, exchanged: Tensor) -> tuple[Floats, Labels]:
    """(K,) how often exchanging a module is exchanging factors, and (K,) the number of the set of factors.

    A hybrid counts if, of all sets of factors, the image whose set is the module's is nearest to it. The set of a
    module is the one that is nearest most often, other than none and all, on the other half of the pairs.

    Args:
        hybrids: (K, pairs, …) of each module.
        exchanged: (sets, pairs, …) as :attr:`decoders.Truth.exchanged`.
    """
    distances = (hybrids[:, None] - exchanged).square().flatten(3).sum(3).numpy()
    between = (exchanged[-1] - exchanged[0]).square().flatten(1).sum(1).numpy()
    nearest = distances <= distances.min(1, keepdims=True) + _EQUAL * between
    even = np.arange(nearest.shape[2]) % 2 == 0
    hits = []
    for half in (even, ~even):
        chosen = 1 + nearest[:, 1:-1, half].sum(2).argmax(1)
        hits.append(nearest[np.arange(len(nearest)), chosen][:, ~half].mean(1))
    return np.mean(hits, axis=0), 1 + nearest[:, 1:-1].sum(2).argmax(1)


def of_scene(problem: Problem, labels: Labels) -> dict[str, Any]:
    """Of a decoder: agreement with the parts, and with the factors."""
    truth = problem.scene
    if truth is None:
        return {}
    modules = members(labels)
    templates = problem.samples[0].templates(labels)
    hybridizer = cp.Hybridizer(problem.generator, problem.layer)
    hybrids = hybridizer.hybridize(truth.base, truth.source, units=modules).images
    accuracy, sets = interchange(hybrids, truth.exchanged)
    return {
        "iou": cp.parts_agreement(templates, truth.masks).mean_iou,
        "interchange": float(accuracy.sum()) / max(problem.n_modules, len(modules)),
        "factors": [factor_names(int(number)) for number in sets],
    }


def in_place(problem: Problem) -> dict[str, Any]:
    """Interchange accuracy where every channel is exchanged, but only in the place of one part: of no method."""
    truth = problem.scene
    if truth is None:
        return {}
    hybridizer, channels = cp.Hybridizer(problem.generator, problem.layer), problem.samples[0].influence.units
    every = [channel for units in channels for channel in units[problem.layer]]
    hybrids = [
        hybridizer.hybridize(truth.base, truth.source, units=[every], where=place).images[0] for place in truth.places
    ]
    accuracy, sets = interchange(torch.stack(hybrids), truth.exchanged)
    return {"interchange": float(accuracy.mean()), "factors": [factor_names(int(number)) for number in sets]}


def of_exchange(problem: Problem, labels: Labels, pairs: int) -> dict[str, float]:
    """Cause, isolation and separation with new pairs, means over the modules that have a region of their own.

    A layer in one piece has none: its separation is 0.
    """
    named = {f"module {k + 1}": {problem.layer: some} for k, some in enumerate(members(labels))}
    found = cp.exchange(problem.generator, named, n_pairs=pairs, controls=0, images=0)
    placed = ~np.isnan(found.separation)
    if not placed.any():
        return {"separation": 0.0}
    scores = {name: getattr(found, name)[placed] for name in ("cause", "isolation", "separation")}
    return {name: float(values.mean()) for name, values in scores.items()}
