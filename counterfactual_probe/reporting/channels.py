"""A layer's channels, described one by one: their influence maps, how precise these are, and which to trust."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..base import drawing
from ..base.errors import first_few
from ..modules import plots
from ..modules.confidence import SURE
from .section import CaptionedFigure, Section, shown
from .study import LayerStudy, Study
from .words import percent

_NAMED = 24  # sure channels that a sentence names; all confidences are in the modules' file


def describe_channels(study: Study, layer: LayerStudy) -> Section:
    """Sentences and figures of a layer's channels."""
    sentences = (trusted_sentence(layer), error_sentence(layer))
    return Section(
        "Channels",
        tuple(sentence for sentence in sentences if sentence),
        figures=tuple(_figures(study, layer)),
        in_short="" if layer.selection is None else sure_sentence(layer),
    )


# --- sentences, each computed from the study's numbers ---------------------------------------------


def sure_sentence(layer: LayerStudy) -> str:
    """How many channels are sure of their module."""
    kept = layer.finder.confidence_
    placed = np.isfinite(kept)
    sure = int((kept[placed] >= SURE).sum())
    return (
        f"{sure} of {int(placed.sum())} channels are sure: in {percent(SURE)} or more of the resamples they keep their "
        "module, and in another draw of latents nearly all of them would, too."
    )


def trusted_sentence(layer: LayerStudy) -> str | None:
    """Which channels to trust, by their numbers; None of too few pairs."""
    if layer.selection is None:
        return None
    kept, influence, labels = layer.finder.confidence_, layer.maps[0].influence.numpy(), layer.finder.labels_
    order = [int(channel) for channel in np.argsort(-influence, kind="stable") if kept[channel] >= SURE]
    own = [[str(channel) for channel in order if labels[channel] == k] for k in range(layer.finder.n_modules)]
    if not order:
        return sure_sentence(layer)
    named = [f"module {k}: {first_few(channels, _NAMED) or 'none'}" for k, channels in enumerate(own, 1)]
    return f"{sure_sentence(layer)} By number, the strongest first: {'; '.join(named)}."


def error_sentence(layer: LayerStudy) -> str:
    """How precise the maps are."""
    errors = layer.relative_errors
    dead = layer.layer.channels - len(errors)
    dead_words = "no channel is" if dead == 0 else f"{dead} channel{'s are' if dead > 1 else ' is'}"
    return (
        f"The standard error of a map is {percent(float(np.median(errors)))} of the map in the median channel and "
        f"{percent(float(np.quantile(errors, 0.95)))} or less in 95 % of them; {dead_words} without any effect."
    )


def _concentration_sentence(layer: LayerStudy) -> str:
    """How unequally influence is spread over channels."""
    influence = np.sort(layer.maps[0].influence.double().numpy())[::-1]
    tenth = max(1, len(influence) // 10)
    share = float(influence[:tenth].sum() / max(influence.sum(), 1e-30))
    return f"The {tenth} strongest of {len(influence)} channels have {percent(share)} of the influence."


def _error_place_sentence(layer: LayerStudy) -> str:
    """Whether maps are least certain where they are largest."""
    maps, errors = (value.flatten(1).double().numpy() for value in (layer.maps[0].maps, layer.maps[0].standard_error))
    alive = (maps.std(1) > 0) & (errors.std(1) > 0)
    pairs = zip(maps[alive], errors[alive], strict=True)
    correlation = float(np.median([np.corrcoef(one, two)[0, 1] for one, two in pairs])) if alive.any() else 0.0
    words = "the estimate is least certain where the channel acts most" if correlation > 0.5 else "they differ in place"
    return f"Median correlation with the maps: {correlation:.2f}; {words}."


# --- figures ---------------------------------------------------------------------------------------


def _figures(study: Study, layer: LayerStudy) -> Iterator[CaptionedFigure]:
    """Maps, confidence, influence and standard errors."""
    name, maps, labels = layer.layer.name, layer.maps[0], layer.finder.labels_
    parameters, influence = study.parameters(layer), maps.influence.numpy()
    order = np.lexsort((-influence, np.where(labels < 0, len(labels), labels)))
    figure, _ = drawing.plot_mosaic(maps.maps.numpy()[order], modules=labels[order].tolist())
    yield shown(
        f"influence_{name}",
        figure,
        "Influence map of every channel, framed in its module's colour, the strongest of each module first; every map "
        "is scaled to its own largest value.",
        parameters,
    )
    if layer.selection is not None:
        figure, _ = plots.plot_confidence(influence, layer.finder.confidence_, labels.tolist())
        yield shown(
            f"confidence_{name}",
            figure,
            "Which channels to trust: each bar is a channel, blue where resampled pairs keep it in its module, red "
            f"where they do not. {sure_sentence(layer)}",
            parameters,
            narrow=True,
        )
    figure, _ = plots.plot_channel_influence(influence, maps.influence_standard_error.numpy(), labels.tolist())
    yield shown(
        f"channels_{name}",
        figure,
        f"Influence of every channel (mean of its map) with ± one standard error. {_concentration_sentence(layer)}",
        parameters,
        narrow=True,
    )
    figure, _ = drawing.plot_mosaic(maps.standard_error.numpy()[order], modules=labels[order].tolist())
    yield shown(
        f"standard_errors_{name}",
        figure,
        "Standard errors of the same maps, in the same order, each scaled to its own largest value. "
        f"{_error_place_sentence(layer)}",
        parameters,
    )
