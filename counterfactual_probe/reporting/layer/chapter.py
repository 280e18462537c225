"""The chapter of a layer: its modules by both methods, its channels, and what was measured, as a section."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
from torch import Tensor

from ...base.display.records import csv_text
from ...base.display.text import counted
from ...base.files import safe_name
from ...generator.results import units_to_json
from ...modules import plots
from ...modules.clustering import cosine_matrix
from ...modules.confidence import ENOUGH, pairs_for, unit_records
from ...modules.finder import ModuleFinder
from ...registry.naming import Shown, module_names
from ...registry.regions import Regions
from ..section import CaptionedFigure, Section, shown
from ..study import LayerStudy, Study, expected_ari
from ..words import confident_words, listing, percent, reproducible_words
from .figures import colour_key, confidence_figure, images_figure, mosaic_figure

METHODS = {
    "l2": "pair-normalised maps (every pair of latents counts once, rows of unit L2 norm)",
    "bits": "the papers' pipeline (mean maps, binarised at their 75th percentile)",
    "pca": "what channels change (shares of the principal components of all changes), wherever in the image",
}


def describe_layer(study: Study, layer: LayerStudy, regions: Regions) -> Section:
    """Sentences, figures and files of a layer."""
    regions = regions.resized(*layer.maps.maps.shape[1:])
    names = layer.names(regions)
    found = layer.shown(regions)
    sentences = (_shows(layer, found), _method(layer), _trusted(layer), _specific(layer, names), _precise(layer))
    return Section(
        f"Layer {layer.layer.name}",
        tuple(sentence for sentence in sentences if sentence),
        figures=tuple(_figures(study, layer, names, regions)),
        results=_results(layer, found, names),
        in_short=_in_short(layer, names),
    )


# --- sentences -------------------------------------------------------------------------------------


def _in_short(layer: LayerStudy, names: Sequence[str]) -> str:
    named = [f"{name} ({units.size})" for name, units in zip(names, layer.modules, strict=True) if units.size]
    words = reproducible_words(layer.expected_ari)[0]
    ari = "" if np.isnan(layer.expected_ari) else f" ({layer.expected_ari:.2f})"
    return f"{words}{ari}: {', '.join(named)}"


def _shows(layer: LayerStudy, found: Sequence[Shown]) -> str:
    parts = [
        f"module {k} ({counted(units.size, 'channel')}) {one.words}"
        for k, (units, one) in enumerate(zip(layer.modules, found, strict=True), 1)
    ]
    return f"{listing(parts)[:1].upper()}{listing(parts)[1:]}."


def _method(layer: LayerStudy) -> str:
    """By which method, how far pairs went, and what the other method would give."""
    words = f"Found by NMF of {METHODS[layer.finder.features]}; {layer.stopped}."
    if layer.expected_ari < ENOUGH:
        pairs = pairs_for(int(layer.maps.n_pairs.max()), layer.expected_ari)
        words += f" About {pairs:,} pairs would make the modules reproducible."
    if layer.other is None or np.isnan(layer.expected_ari):
        return words
    if np.isnan(other := expected_ari(layer.other)):
        return f"{words} By {METHODS[layer.other.features]}, all channels are in one module."
    less = "less" if other < layer.expected_ari else "no less"
    return (
        f"{words} By {METHODS[layer.other.features]}, modules are expected to agree {less} with those of another "
        f"sample: adjusted Rand index {other:.2f} instead of {layer.expected_ari:.2f}."
    )


def _trusted(layer: LayerStudy) -> str:
    words = confident_words(layer.finder.confidence_)
    return f"{words} resamples (channels-{safe_name(layer.layer.name)}.csv lists all)."


def _specific(layer: LayerStudy, names: Sequence[str]) -> str | None:
    quality = layer.quality
    if quality is None:
        return None
    parts = [
        f"{names[k - 1]} {value:.1f} times (random sets of as many channels: {np.mean(random):.1f})"
        for k, value, random in zip(quality.provenance["modules"], quality.specificity, quality.random, strict=True)
    ]
    return f"Influence in a module's own quarter of the image, compared with that elsewhere: {listing(parts)}."


def _precise(layer: LayerStudy) -> str:
    errors = layer.maps.relative_error[layer.maps.maps.flatten(1).any(1)].double().numpy()
    dead = layer.layer.channels - len(errors)
    without = f"; {counted(dead, 'channel')} without any effect" if dead else ""
    median = float(np.median(errors)) if len(errors) else 0.0
    return f"The standard error of the median channel's influence map is {percent(median)} of the map{without}."


# --- figures ---------------------------------------------------------------------------------------


def _figures(study: Study, layer: LayerStudy, names: Sequence[str], regions: Regions) -> Iterator[CaptionedFigure]:
    name, hybrids, labels = layer.layer.name, layer.hybrids, layer.finder.labels_
    parameters, influence = study.parameters(layer), layer.maps.influence.numpy()
    order = layer.order(regions)
    rows = [hybrids.base, cast(Tensor, hybrids.source), *(hybrids.images[k] for k in order)]
    of_modules = [f"{names[k]}\n{counted(layer.modules[k].size, 'channel')}" for k in order]
    yield images_figure(
        f"hybrids_{name}",
        rows=rows,
        labels=["base", "source", *of_modules],
        image_range=hybrids.provenance["image_range"],
        sentence="Hybrids: each column is a pair; a module's row shows the base with that module's channels set to "
        "the source's values.",
        parameters=parameters,
    )
    yield _templates_figure(layer, names, regions, parameters)
    yield mosaic_figure(
        f"influence_{name}",
        maps=layer.maps.maps.numpy(),
        labels=labels,
        influence=influence,
        sentence="Influence map of every channel, under its number and framed in its module's colour "
        f"({colour_key(labels, names)}); each on its own scale.",
        parameters=parameters,
    )
    if (labels >= 0).any():
        confidence = layer.finder.confidence_
        yield confidence_figure(
            f"confidence_{name}",
            influence=influence,
            confidence=confidence,
            labels=labels,
            names=names,
            sentence="",
            parameters=parameters,
        )


def _templates_figure(layer: LayerStudy, names: Sequence[str], regions: Regions, parameters: str) -> CaptionedFigure:
    """Templates of the modules, with those of the other method below."""
    finders = [layer.finder] if layer.other is None else [layer.finder, layer.other]
    titles = [f"{name}\n{counted(units.size, 'channel')}" for name, units in zip(names, layer.modules, strict=True)]
    stack, below = [layer.finder.templates_], ""
    if layer.other is not None:
        order = _best_order(*finders)
        stack.append(layer.other.templates_[order])
        other_names = module_names(layer.other.templates_, regions)
        sizes = [layer.other.unit_sets()[k].size for k in order]
        listed = [f"{other_names[k]} ({counted(size, 'channel')})" for k, size in zip(order, sizes, strict=True)]
        below = f" Below, matched to them, those of {METHODS[layer.other.features]}: {listing(listed)}."
    figure, _ = plots.plot_templates(np.stack(stack), titles)
    return shown(
        f"templates_{layer.layer.name}",
        figure,
        f"Where in the image each module acts, by {METHODS[layer.finder.features]}.{below}",
        parameters,
        narrow=True,
    )


def _best_order(one: ModuleFinder, two: ModuleFinder) -> list[int]:
    """For each template of the first, its match in the second, one to one."""
    from scipy.optimize import linear_sum_assignment

    flat = [finder.templates_.reshape(finder.n_modules, -1) for finder in (one, two)]
    return [int(k) for k in linear_sum_assignment(cosine_matrix(*flat), maximize=True)[1]]


# --- files -----------------------------------------------------------------------------------------


def _results(layer: LayerStudy, found: Sequence[Shown], names: Sequence[str]) -> dict[str, Any]:
    name, finder = safe_name(layer.layer.name), layer.finder
    channels = [str(channel) for channel in range(layer.layer.channels)]
    rows = unit_records(channels, names, finder.labels_, finder.weights_, finder.confidence_)
    return {
        f"maps-{name}.safetensors": layer.maps,
        f"hybrids-{name}.safetensors": layer.hybrids,
        f"channels-{name}.csv": csv_text(rows),
        f"modules-{name}.json": _as_json(layer, found),
    }


def _as_json(layer: LayerStudy, found: Sequence[Shown]) -> dict[str, Any]:
    specificity = None if layer.quality is None else layer.quality.specificity.tolist()
    return {
        "layer": layer.layer.name,
        "features": layer.finder.features,
        "labels": layer.finder.labels_.tolist(),
        "modules": units_to_json(layer.modules),
        "shows": [one.name for one in found],
        "expected_ari": _or_none(layer.expected_ari),
        "expected_ari_of_the_other_method": None if layer.other is None else _or_none(expected_ari(layer.other)),
        "confidence": [_or_none(value) for value in layer.finder.confidence_.tolist()],
        "specificity": None if specificity is None else [_or_none(value) for value in specificity],
        "provenance": layer.maps.provenance,
    }


def _or_none(value: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else float(value)
