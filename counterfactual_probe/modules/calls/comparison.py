"""Modules found at each call of a layer and matched along them, with chance and what noise does."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...base.errors import ProbeError, required, whole
from ...generator.units import UnitSet, union
from ...influence.calls import calls_of
from ...influence.maps import InfluenceMaps
from ..clustering import NO_MODULE, Array, Labels, factorise_quickly, factorising, match_labels, most_modules
from ..confidence import RESAMPLES, block_counts
from ..features import MapFeatures
from ..finder import ModuleFinder, module_name
from ..matching import match_modules
from .result import ModulesByCall

_SHARED = {"components"}  # arrays of maps that are not of one unit set each
_HALF_AS_MANY = 2  # a resample has half the pairs, so that the variance of a statistic is twice that of all


def modules_by_call(
    maps: InfluenceMaps, n_modules: int = 3, *, permutations: int = 1000, **parameters: Any
) -> ModulesByCall:
    """Whether channels keep their module along the calls of a layer: modules of each call, matched from call to call.

    >>> maps = cp.InfluenceMap(gen, gen.calls("unet.mid_block")).attribute(blocks=32)  # doctest: +SKIP
    >>> kept = cp.modules_by_call(maps, n_modules=3)  # doctest: +SKIP
    >>> kept.kept, kept.standard_error, kept.p_value  # a share for each call but the last  # doctest: +SKIP
    >>> kept.plot(), kept.plot_channels()  # doctest: +SKIP

    Modules are found at each call by itself, and those of successive calls are matched by their templates
    (:func:`match_modules`). A channel keeps its module if it is in the counterpart at the next call. Two shares say
    what that means: how many channels would by *chance*, had the channels of the later call been permuted; and how many
    are *reproducible*, that is left in their module by another sample of latents at the same call. Channels change
    their module along the calls where clearly fewer keep it than are reproducible. More may keep it: calls share their
    pairs of latents, so that their maps err alike.

    Args:
        maps: of each unit of each call alone. With blocks, there are standard errors and reproducible shares.
        n_modules: number of modules K, the same at all calls.
        permutations: how many times channels are permuted.
        parameters: further arguments of :class:`ModuleFinder`, such as ``features="l2"`` or ``seed``.

    Raises:
        ProbeError: maps that are not of several calls of one layer; more modules than a call has live channels.
    """
    required(maps, InfluenceMaps, "the maps of calls", "give those of cp.InfluenceMap(gen, gen.calls(layer))")
    calls, permutations = calls_of(maps.units), whole(permutations, "permutations", 1)
    if len(calls) < 2:
        raise ProbeError(
            f"the maps are of call {calls[0]} alone; give those of several, such as InfluenceMap(gen, gen.calls(layer))"
        )
    maps_of = [_of_call(maps, place, len(calls)) for place in range(len(calls))]
    finders = [ModuleFinder(n_modules, **parameters).fit(some) for some in maps_of]
    numbers, cosines = _matched(finders)
    labels = np.stack([_renumbered(finder.labels_, of) for finder, of in zip(finders, numbers, strict=True)])
    templates = [finder.templates_[np.argsort(of)] for finder, of in zip(finders, numbers, strict=True)]
    chance, chance_throughout = _permuted(labels, permutations, finders[0].seed)
    error, reproducible = _resampled(maps_of, finders, labels, n_modules)
    about = {name: value for name, value in finders[0].provenance_.items() if name != "maps"}
    return ModulesByCall(
        units=_units(maps, labels, n_modules),
        calls=np.array(calls),
        labels=labels,
        templates=np.stack(templates),
        cosines=cosines,
        kept=_kept(labels),
        chance=chance,
        kept_throughout=_kept_throughout(labels),
        chance_throughout=chance_throughout,
        provenance={"maps": maps.provenance, **about, "permutations": permutations},
        standard_error=error,
        reproducible=reproducible,
    )


def _of_call(maps: InfluenceMaps, place: int, calls: int) -> InfluenceMaps:
    """The maps of one call of several, which stand one after the other."""
    each = len(maps) // calls
    rows = slice(place * each, (place + 1) * each)
    changed: dict[str, Any] = {name: value[rows] for name, value in maps.tensors().items() if name not in _SHARED}
    return dataclasses.replace(maps, units=maps.units[rows], **changed)


def _matched(finders: Sequence[ModuleFinder]) -> tuple[list[Labels], Array]:
    """For each call, the number of each of its modules along all calls; and the cosines of those that are matched."""
    numbers, cosines = [np.arange(finders[0].n_modules)], []
    for first, second in pairwise(finders):
        match = match_modules(first, second)
        before = numbers[-1]
        after = np.empty_like(before)
        after[match.pairs[:, 1]] = before[match.pairs[:, 0]]
        cosine = np.empty(len(before))
        cosine[before[match.pairs[:, 0]]] = match.cosines
        numbers.append(after)
        cosines.append(cosine)
    return numbers, np.array(cosines)


def _renumbered(labels: Labels, numbers: Labels) -> Labels:
    return np.where(labels >= 0, numbers[labels], NO_MODULE)


def _kept(labels: Labels) -> Array:
    """(…, calls − 1) of labels (…, calls, channels): of the channels that live at both calls, NaN if there are none."""
    one, two = labels[..., :-1, :], labels[..., 1:, :]
    alive = (one >= 0) & (two >= 0)
    count = alive.sum(-1)
    return np.asarray(np.where(count, (alive & (one == two)).sum(-1) / np.maximum(count, 1), np.nan))


def _kept_throughout(labels: Labels) -> float:
    """Of the channels that live at all calls, the share with one label."""
    alive = (labels >= 0).all(0)
    return float((labels == labels[0]).all(0)[alive].mean()) if alive.any() else float("nan")


def _permuted(labels: Labels, permutations: int, seed: int) -> tuple[Array, Array]:
    """The shares kept, with the live channels of each call permuted: (calls − 1, permutations) and (permutations,)."""
    rng = np.random.default_rng([seed, 1])
    steps, throughout = [], []
    for _ in range(permutations):
        shuffled = labels.copy()
        for row in shuffled:
            alive = np.flatnonzero(row >= 0)
            row[alive] = row[rng.permutation(alive)]
        steps.append(_kept(shuffled))
        throughout.append(_kept_throughout(shuffled))
    return np.stack(steps, axis=1), np.array(throughout)


def _resampled(
    maps: Sequence[InfluenceMaps], finders: Sequence[ModuleFinder], labels: Labels, n_modules: int
) -> tuple[Array | None, Array | None]:
    """Standard errors of the shares kept, and reproducible shares, over resamples of blocks of pairs.

    All calls take the same resamples, because they share their pairs. A resample's modules are matched with those of
    all pairs by the channels that they share, at the call itself.
    """
    features = _features_of(finders[0])
    blocks = [features.blocks(some) for some in maps]
    if any(block is None for block in blocks):
        return None, None
    with factorising(), ThreadPoolExecutor(os.cpu_count()) as pool:

        def once(resample: int) -> Labels:
            several = zip(finders, blocks, labels, strict=True)
            return np.stack(
                [
                    _relabelled(finder, block, of, n_modules, resample)
                    for finder, block, of in several
                    if block is not None
                ]
            )

        found = np.stack(list(pool.map(once, range(RESAMPLES))))
    same = ((found == labels) & (labels >= 0)).sum(-1) / (labels >= 0).sum(-1)
    return _kept(found).std(0, ddof=1) / np.sqrt(_HALF_AS_MANY), np.asarray(same.mean(0))


def _features_of(finder: ModuleFinder) -> MapFeatures:
    return MapFeatures(finder.features, finder.window, finder.percentile)


def _relabelled(finder: ModuleFinder, blocks: Tensor, labels: Labels, n_modules: int, resample: int) -> Labels:
    """The modules of a resample, under the numbers of the modules of all pairs that they agree with most."""
    weights = torch.from_numpy(block_counts(blocks.shape[1], finder.seed, resample)).to(blocks.dtype)
    # Features do not depend on a map's scale, so a sum serves as a mean.
    rows = _features_of(finder).rows(torch.tensordot(blocks, weights, dims=([1], [0])).double().numpy())
    alive = (labels >= 0) & rows.any(1)
    found = np.full(len(labels), NO_MODULE)
    if most_modules(rows[alive], finder.method) >= n_modules:
        ((resampled, _),) = factorise_quickly(rows[alive], [n_modules], finder.method, finder.seed)
        found[alive] = np.argsort(match_labels(labels[alive], resampled, n_modules))[resampled]
    return found


def _units(maps: InfluenceMaps, labels: Labels, n_modules: int) -> tuple[UnitSet, ...]:
    layers, kind = [layer for item in maps.units for layer in item], maps.units[0].kind
    flat = labels.ravel()
    return tuple(
        union((maps.units[row] for row in np.flatnonzero(flat == k)), layers, kind).named(module_name(k))
        for k in range(n_modules)
    )
