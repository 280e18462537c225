"""A layer's channels, described one by one: their influence maps, how precise these are, and which to trust."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ...base.errors import first_few
from ...modules import plots
from ...modules.confidence import CONFIDENT
from ..layer.figures import colour_key, confidence_figure, mosaic_figure
from ..section import CaptionedFigure, Section, shown
from ..words import confident_words, percent
from .study import PapersLayer, PapersStudy

_NAMED = 24  # confident channels that a sentence lists; the modules' file has the confidence of all


def describe_channels(study: PapersStudy, layer: PapersLayer, names: Sequence[str]) -> Section:
    """Sentences and figures of a layer's channels; ``names`` are those of its modules."""
    sentences = (trusted_sentence(layer, names), error_sentence(layer))
    return Section(
        "Channels",
        tuple(sentence for sentence in sentences if sentence),
        figures=tuple(_figures(study, layer, names)),
        in_short="" if layer.selection is None else confident_sentence(layer),
    )


# --- sentences, each computed from the study's numbers ---------------------------------------------


def confident_sentence(layer: PapersLayer) -> str:
    """How many channels have a confident module."""
    words = confident_words(layer.finder.confidence_)
    return f"{words} bootstrap resamples, and nearly all of them would with another sample of latents, too."


def trusted_sentence(layer: PapersLayer, names: Sequence[str]) -> str | None:
    """Which channels of each module to trust, by their numbers; None if there are too few pairs."""
    if layer.selection is None:
        return None
    stability, influence, labels = layer.finder.confidence_, layer.maps[0].influence.numpy(), layer.finder.labels_
    order = [int(channel) for channel in np.argsort(-influence, kind="stable") if stability[channel] >= CONFIDENT]
    if not order:
        return confident_sentence(layer)
    parts = []
    for k, name in enumerate(names):
        channels = [str(channel) for channel in order if labels[channel] == k]
        parts.append(f"{name}: {first_few(channels, _NAMED) or 'none'}")
    return f"{confident_sentence(layer)} Their numbers, most influential first: {'; '.join(parts)}."


def error_sentence(layer: PapersLayer) -> str:
    """How precise the maps are."""
    errors = layer.relative_errors
    dead = layer.layer.channels - len(errors)
    dead_words = "no channel is" if dead == 0 else f"{dead} channel{'s are' if dead > 1 else ' is'}"
    return (
        f"The standard error of a map is {percent(float(np.median(errors)))} of the map for the median channel and "
        f"{percent(float(np.quantile(errors, 0.95)))} or less for 95 % of channels; {dead_words} without any effect."
    )


def _concentration_sentence(layer: PapersLayer) -> str:
    """How unequally influence is spread over channels."""
    influence = np.sort(layer.maps[0].influence.double().numpy())[::-1]
    tenth = max(1, len(influence) // 10)
    share = float(influence[:tenth].sum() / max(influence.sum(), 1e-30))
    return f"The {tenth} strongest of {len(influence)} channels account for {percent(share)} of the influence."


def _error_place_sentence(layer: PapersLayer) -> str:
    """Whether the standard error is largest where the map is."""
    maps, errors = (value.flatten(1).double().numpy() for value in (layer.maps[0].maps, layer.maps[0].standard_error))
    alive = (maps.std(1) > 0) & (errors.std(1) > 0)
    pairs = zip(maps[alive], errors[alive], strict=True)
    correlation = float(np.median([np.corrcoef(one, two)[0, 1] for one, two in pairs])) if alive.any() else 0.0
    words = "the estimate is least certain where the channel acts most" if correlation > 0.5 else "they peak elsewhere"
    return f"Median correlation with the maps: {correlation:.2f}; {words}."


# --- figures ---------------------------------------------------------------------------------------


def _figures(study: PapersStudy, layer: PapersLayer, names: Sequence[str]) -> Iterator[CaptionedFigure]:
    """Maps, confidence, influence and standard errors."""
    name, maps, labels = layer.layer.name, layer.maps[0], layer.finder.labels_
    parameters, influence = study.parameters(layer), maps.influence.numpy()
    yield mosaic_figure(
        f"influence_{name}",
        maps=maps.maps.numpy(),
        labels=labels,
        influence=influence,
        sentence="Influence map of every channel, under its number and framed in its module's colour, the most "
        f"influential of each module first ({colour_key(labels, names)}); every map is scaled to its own maximum.",
        parameters=parameters,
    )
    if layer.selection is not None:
        confidence, words = layer.finder.confidence_, confident_sentence(layer)
        yield confidence_figure(
            f"confidence_{name}",
            influence=influence,
            confidence=confidence,
            labels=labels,
            names=names,
            sentence=words,
            parameters=parameters,
        )
    figure, _ = plots.plot_channel_influence(
        influence, maps.influence_standard_error.numpy(), labels.tolist(), names=names
    )
    yield shown(
        f"channels_{name}",
        figure,
        f"Influence of every channel (mean of its map) with ± one standard error. {_concentration_sentence(layer)}",
        parameters,
        narrow=True,
    )
    yield mosaic_figure(
        f"standard_errors_{name}",
        maps=maps.standard_error.numpy(),
        labels=labels,
        influence=influence,
        sentence="Standard errors of the same maps, in the same order, each scaled to its own maximum. "
        f"{_error_place_sentence(layer)}",
        parameters=parameters,
    )
