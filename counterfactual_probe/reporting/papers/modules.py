"""A layer's modules: what they show, how reproducible they are, and hybrids by them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, cast, get_args

import numpy as np
import torch

from ...base.display.text import counted
from ...base.files import safe_name
from ...generator.results import units_to_json
from ...modules import plots
from ...modules.clustering import cosine_matrix, match_labels
from ...modules.confidence import ENOUGH, pairs_for
from ...registry.naming import RESEMBLES_FROM, agreement, module_names, shown_regions
from ...registry.regions import Regions
from ..layer.figures import images_figure
from ..section import CaptionedFigure, Section, shown
from ..words import ari_words, listing, percent
from .study import PapersLayer, PapersStudy


def describe_modules(study: PapersStudy, layer: PapersLayer, regions: Regions) -> Section:
    """Sentences, figures and files of a layer's modules; ``regions`` name what their templates show."""
    names = module_names(layer.finder.templates_, regions)
    shows, earlier = template_sentence(layer, regions), earlier_sentence(layer, regions)
    sentences = (shows, earlier, stability_sentence(layer), expected_sentence(layer), quality_sentence(layer, names))
    return Section(
        "Modules",
        tuple(sentence for sentence in sentences if sentence),
        figures=tuple(_figures(study, layer, names)),
        results=_results(layer, regions),
        in_short=" ".join(part for part in (shows, earlier, _verdict(layer)) if part),
    )


# --- sentences, each computed from the study's numbers ---------------------------------------------


def template_sentence(layer: PapersLayer, regions: Regions) -> str:
    """What the templates show, by correlation with named parts of the image."""
    parts = []
    for k, found in enumerate(shown_regions(layer.finder.templates_, regions), 1):
        parts.append(f"module {k} ({counted(layer.modules[k - 1].size, 'channel')}) {found.words}")
    return f"At {layer.layer.name}, K = {layer.finder.n_modules}: {listing(parts)}."


def earlier_sentence(layer: PapersLayer, regions: Regions) -> str | None:
    """Whether these templates agree with what an earlier study saw in this layer; None if there was none."""
    if layer.layer.name != regions.layer or layer.finder.n_modules != len(regions.expected):
        return None
    sentences = []
    for number, finder in enumerate(layer.finders, 1):
        values = agreement(finder.templates_, regions)
        good = [name for name, _, value in values if value >= RESEMBLES_FROM]
        missing = [name for name, _, value in values if value < RESEMBLES_FROM]
        if not missing:
            verdict = "agrees: each of them has its own template"
        elif good:
            verdict = f"agrees in part: it shows {listing(good)} and not {listing(missing)}"
        else:
            verdict = "does not agree: it shows none of them"
        correlations = ", ".join(f"{name} {value:.2f}" for name, _, value in values)
        sentences.append(f"Sample {number} {verdict} ({correlations}).")
    seen = listing(list(regions.expected))
    return (
        f"In an earlier study of this generator, on other latents, this layer's templates showed {seen}. "
        f"{' '.join(sentences)}"
    )


def stability_sentence(layer: PapersLayer) -> str:
    """How reproducible the modules are, between subsets of channels and between samples of latents."""
    k = layer.finder.n_modules
    ari = layer.at("ari", k)
    pairs = int(layer.maps[0].n_pairs[0])
    return (
        f"Between two samples of {counted(pairs, 'pair')} of latents, "
        f"{percent(layer.at('draw_agreement', k))} of the channels keep their module, matched templates have a cosine "
        f"of {layer.at('draw_cosine', k):.2f}, and the adjusted "
        f"Rand index is {ari:.2f} (1: the same modules, 0: chance): {ari_words(ari)}. {_subsets_sentence(layer)}"
    )


def _subsets_sentence(layer: PapersLayer) -> str:
    k = layer.finder.n_modules
    if (missing := layer.why_no_subsets) is not None:
        return f"Subsets of the channels were not compared: {missing}."
    return (
        f"Between subsets of the channels, which say nothing about other latents, "
        f"{percent(layer.at('consistency', k))} of the channels keep their label with NMF and "
        f"{percent(layer.at('consistency', k, 'kmeans'))} with k-means."
    )


def expected_sentence(layer: PapersLayer) -> str | None:
    """What one sample says about another, and how many pairs would help; None if there are too few pairs."""
    if layer.selection is None:
        return None
    ari, pairs = layer.expected_ari, int(layer.maps[0].n_pairs[0])
    words = f"From the first sample alone, an adjusted Rand index of {ari:.2f} is expected: {ari_words(ari)}."
    if ari >= ENOUGH:
        return words
    return f"{words} About {pairs_for(pairs, ari):,} pairs would raise it to {ENOUGH}."


def quality_sentence(layer: PapersLayer, names: Sequence[str]) -> str | None:
    """Whether each module acts in its own region; None if there are not two modules to compare."""
    quality = layer.quality
    if quality is None:
        return None
    parts = [
        f"{names[k - 1]} {value:.2f} (random sets of as many channels: {np.mean(random):.2f})"
        for k, value, random in zip(quality.provenance["modules"], quality.specificity, quality.random, strict=True)
    ]
    return (
        "Specificity, on the pairs of the second sample: influence in the quarter of the image where a module's "
        f"template is largest, divided by the influence elsewhere: {listing(parts)}."
    )


def _verdict(layer: PapersLayer) -> str:
    """How far to trust the modules, in one line."""
    ari = layer.at("ari", layer.finder.n_modules)
    return f"Two samples of latents give {ari_words(ari)} (adjusted Rand index {ari:.2f})."


def _selection_words(layer: PapersLayer) -> str:
    """Which number of modules the measures suggest, and why."""
    selection = layer.selection
    if selection is None:
        return "unknown"
    best = int(selection.n_modules[selection.expected_ari.argmax()])
    if selection.expected_ari.max() >= ENOUGH:
        verdict = f"{selection.suggested} is the most that another sample of latents is expected to reproduce"
    else:
        verdict = f"another sample of latents is expected to reproduce none of them well, {best} best"
    return (
        f"{verdict} (marked); the stability between subsets of the channels says nothing about other latents, and "
        "variance explained always grows with the number of modules"
    )


def _stability_panels(layer: PapersLayer) -> str:
    """What the panels of the stability figure show."""
    if (missing := layer.why_no_subsets) is not None:
        return f"between two samples of latents (not between subsets of the channels: {missing})"
    return (
        "left and middle, between overlapping subsets of the channels (mean ± standard deviation); right, between two "
        "samples of latents, the harder and more informative test"
    )


# --- figures ---------------------------------------------------------------------------------------


def _figures(study: PapersStudy, layer: PapersLayer, names: Sequence[str]) -> Iterator[CaptionedFigure]:
    """Templates, stability, the choice of K, hybrids, and hybrids of one source."""
    parameters = study.parameters(layer)
    yield _templates_figure(study, layer, names)
    yield _stability_figure(study, layer)
    if layer.selection is not None:
        figure, _ = layer.selection.plot()
        sentence = f"How many modules: {_selection_words(layer)}."
        yield shown(f"selection_{layer.layer.name}", figure, sentence, parameters, narrow=True)
    yield _hybrids_figure(layer, names, parameters)
    yield _one_source_figure(layer, names, parameters)


def _templates_figure(study: PapersStudy, layer: PapersLayer, names: Sequence[str]) -> CaptionedFigure:
    """Templates of the first sample above the matched ones of the second."""
    first, second = (finder.templates_ for finder in layer.finders)
    order = _matched_modules(layer)
    figure, _ = plots.plot_templates(np.stack([first, second[order]]), _template_titles(layer, order, names))
    return shown(
        f"templates_{layer.layer.name}",
        figure,
        "Templates of the modules: where in the image each one acts. Top row: first sample of latents; bottom row: "
        "the matched templates of an independent sample; the more alike the rows, the more the modules can be trusted.",
        f"{study.parameters(layer)}; second sample: seed {study.settings.seeds[1]}; NMF of maps binarised at their "
        "75th percentile",
        narrow=True,
    )


def _matched_modules(layer: PapersLayer) -> np.ndarray[Any, np.dtype[np.int64]]:
    """For each module of the first sample, its match in the second."""
    one, two = (finder.labels_ for finder in layer.finders)
    both = (one >= 0) & (two >= 0)
    return match_labels(one[both], two[both], layer.finder.n_modules)


def _template_titles(layer: PapersLayer, order: np.ndarray[Any, np.dtype[np.int64]], names: Sequence[str]) -> list[str]:
    flat = [finder.templates_.reshape(layer.finder.n_modules, -1) for finder in layer.finders]
    cosines = cosine_matrix(*flat)[np.arange(len(order)), order]
    sizes = [[units.size for units in finder.unit_sets()] for finder in layer.finders]
    return [
        f"{names[k]}\n{sizes[0][k]} / {sizes[1][other]} channels\ncos {cosines[k]:.2f}" for k, other in enumerate(order)
    ]


def _stability_figure(study: PapersStudy, layer: PapersLayer) -> CaptionedFigure:
    from matplotlib.figure import Figure as NewFigure

    curves = {"NMF": layer.stability["nmf"], "k-means": layer.stability["kmeans"]}
    # Without repetitions there is nothing between subsets to show.
    quantities = [quantity for quantity in get_args(plots.Quantity) if getattr(layer.stability["nmf"], quantity).size]
    figure = NewFigure(figsize=(11 / 3 * len(quantities), 3.2), layout="constrained")
    for ax, quantity in zip(figure.subplots(1, len(quantities), squeeze=False)[0], quantities, strict=True):
        values = {name: (stability.n_modules, getattr(stability, quantity)) for name, stability in curves.items()}
        plots.plot_stability(values, quantity=quantity, ax=ax)
    seeds = study.settings.seeds
    return shown(
        f"stability_{layer.layer.name}",
        figure,
        f"How reproducible the modules are: {_stability_panels(layer)}.",
        f"{study.generator}, layer {layer.layer.name}, {curves['NMF'].consistency.shape[1]} repetitions, seeds "
        f"{seeds[0]} and {seeds[1]}",
    )


def _hybrids_figure(layer: PapersLayer, names: Sequence[str], parameters: str) -> CaptionedFigure:
    """Base, source and each module's hybrids, with those by its confident channels below."""
    hybrids, confident = layer.hybrids, layer.confident_hybrids
    rows, labels = [hybrids.base, cast(torch.Tensor, hybrids.source)], ["base", "source"]
    for k, units in enumerate(layer.modules):
        rows.append(hybrids.images[k])
        labels.append(f"{names[k]}\n{counted(units.size, 'channel')}")
        if confident is not None:
            rows.append(confident.images[k])
            labels.append(f"its {confident.units[k].size}\nconfident ones")
    below = "" if confident is None else ", and the row below it only with its confident channels"
    return images_figure(
        f"hybrids_{layer.layer.name}",
        rows=rows,
        labels=labels,
        image_range=hybrids.provenance["image_range"],
        sentence="Hybrids: each column is a pair; a module's row shows the base with that module's channels set to the "
        f"values they take for the source{below}.",
        parameters=parameters,
    )


def _one_source_figure(layer: PapersLayer, names: Sequence[str], parameters: str) -> CaptionedFigure:
    """One source for all bases, above images of mixed latents."""
    hybrids = layer.one_source
    source = cast(torch.Tensor, hybrids.source)
    # The source once, in the corner; it is the same in every column.
    corner = torch.full_like(source, hybrids.provenance["image_range"][1])
    corner[0] = source[0]
    rows, labels = [corner, hybrids.base], ["source", "bases"]
    for k, share in enumerate(_shares(layer)):
        rows += [hybrids.images[k], layer.mixed[k].to(hybrids.images)]
        labels += [names[k], f"latents mixed\n{100 * share:.0f} %"]
    return images_figure(
        f"one_source_{layer.layer.name}",
        rows=rows,
        labels=labels,
        image_range=hybrids.provenance["image_range"],
        sentence="One source and many bases, with a control: each module's row is followed by images of mixed "
        "latents, in which the same share of latent coordinates comes from the source instead.",
        parameters=f"{parameters}; shares {', '.join(f'{share:.2f}' for share in _shares(layer))}",
    )


def _shares(layer: PapersLayer) -> list[float]:
    return [units.size / layer.layer.channels for units in layer.modules]


# --- files -----------------------------------------------------------------------------------------


def _results(layer: PapersLayer, regions: Regions) -> dict[str, Any]:
    name = safe_name(layer.layer.name)
    return {
        **{f"maps-{name}-draw{draw}.safetensors": maps for draw, maps in enumerate(layer.maps, 1)},
        **{f"stability-{name}-{method}.safetensors": stability for method, stability in layer.stability.items()},
        f"hybrids-{name}.safetensors": layer.hybrids,
        f"one-source-{name}.safetensors": layer.one_source,
        f"modules-{name}.json": _as_json(layer, regions),
    }


def _as_json(layer: PapersLayer, regions: Regions) -> dict[str, Any]:
    k = layer.finder.n_modules
    confidence = None if layer.selection is None else layer.finder.confidence_
    specificity = None if layer.quality is None else layer.quality.specificity
    return {
        "layer": layer.layer.name,
        "labels": layer.finder.labels_.tolist(),
        "modules": units_to_json(layer.modules),
        "shows": [found.name for found in shown_regions(layer.finder.templates_, regions)],
        "agreement_between_draws": {q: _or_none(layer.at(q, k)) for q in ("ari", "draw_agreement", "draw_cosine")},
        "expected_ari": _or_none(layer.expected_ari),
        "confidence": None if confidence is None else [_or_none(float(value)) for value in confidence],
        "specificity": None if specificity is None else [_or_none(float(value)) for value in specificity],
        "label_consistency": {method: _or_none(layer.at("consistency", k, method)) for method in layer.stability},
        "provenance": layer.maps[0].provenance,
    }


def _or_none(value: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else value
