"""Sentences about a study, each computed from its numbers."""

from __future__ import annotations

import numpy as np

from ..base.errors import first_few
from ..hybrids.result import Hybrids
from ..modules.confidence import ENOUGH, SURE, pairs_for
from ..registry.regions import NAMED_FROM, Regions, agreement, describe
from .study import CrossLayer, LayerStudy, Study

_NAMED = 24  # sure channels that a sentence names; all confidences are in the modules' file


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def listing(items: list[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def ari_words(ari: float) -> str:
    """The adjusted Rand index between two draws in words a newcomer understands."""
    if np.isnan(ari):
        return "unknown (not computed)"
    if ari >= 0.9:
        return "nearly the same modules"
    if ari >= 0.7:
        return "mostly the same modules; some channels change sides"
    if ari >= 0.4:
        return "related modules; many channels change sides, so do not trust single channels"
    if ari >= 0.15:
        return "weakly related modules; another draw of latents groups most channels otherwise"
    return "unrelated modules; this grouping is an accident of the draw"


def template_sentence(layer: LayerStudy, regions: Regions) -> str:
    """What the templates show, by correlation with named parts of the image."""
    parts = []
    for k, (name, value) in enumerate(describe(layer.finder.templates_, regions), 1):
        channels = layer.modules[k - 1].size
        shown = f"the {name}" if name else "no named part"
        parts.append(f"module {k} ({channels} channels) shows {shown} (correlation {value:.2f})")
    return f"At {layer.layer.name}, K = {layer.finder.n_modules}: {listing(parts)}."


def earlier_sentence(layer: LayerStudy, regions: Regions) -> str | None:
    """Whether these templates agree with what an earlier study saw in this layer."""
    if layer.layer.name != regions.layer or layer.finder.n_modules != len(regions.expected):
        return None
    sentences = []
    for draw, finder in enumerate(layer.finders, 1):
        found = agreement(finder.templates_, regions)
        good = [name for name, _, value in found if value >= NAMED_FROM]
        missing = [name for name, _, value in found if value < NAMED_FROM]
        if not missing:
            verdict = "agrees: each of them has its own template"
        elif good:
            verdict = f"agrees in part: it shows {listing(good)} and not {listing(missing)}"
        else:
            verdict = "does not agree: it shows none of them"
        sentences.append(f"Draw {draw} {verdict} ({', '.join(f'{name} {value:.2f}' for name, _, value in found)}).")
    seen = listing(list(regions.expected))
    return (
        f"In an earlier study of this generator, on other latents, this layer's templates showed {seen}. "
        f"{' '.join(sentences)}"
    )


def stability_sentence(layer: LayerStudy) -> str:
    """How well the modules come back, between subsets of channels and between draws of latents."""
    k = layer.finder.n_modules
    ari = layer.at("ari", k)
    pairs = int(layer.maps[0].n_pairs[0])
    return (
        f"Between two draws of {pairs} pairs of latents, {percent(layer.at('draw_agreement', k))} of the channels keep "
        f"their module and the templates have a cosine of {layer.at('draw_cosine', k):.2f}; the adjusted Rand index is "
        f"{ari:.2f} (1: the same modules, 0: chance): {ari_words(ari)}. {_subsets_sentence(layer)}"
    )


def expected_sentence(layer: LayerStudy) -> str | None:
    """What one draw says of another, and what would help."""
    if layer.selection is None:
        return None
    ari, pairs = layer.expected_ari, int(layer.maps[0].n_pairs[0])
    words = f"From the first draw alone an adjusted Rand index of {ari:.2f} is expected: {ari_words(ari)}."
    if ari >= ENOUGH:
        return words
    return f"{words} About {pairs_for(pairs, ari):,} pairs would bring it to {ENOUGH}."


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
    """Which channels to trust, by their numbers."""
    if layer.selection is None:
        return None
    kept, influence, labels = layer.finder.confidence_, layer.maps[0].influence.numpy(), layer.finder.labels_
    order = [int(channel) for channel in np.argsort(-influence, kind="stable") if kept[channel] >= SURE]
    own = [[str(channel) for channel in order if labels[channel] == k] for k in range(layer.finder.n_modules)]
    if not order:
        return sure_sentence(layer)
    named = [f"module {k}: {first_few(channels, _NAMED) or 'none'}" for k, channels in enumerate(own, 1)]
    return f"{sure_sentence(layer)} By number, the strongest first: {'; '.join(named)}."


def sure_rows(layer: LayerStudy) -> str:
    """What the rows below the modules' in the figure of hybrids are."""
    return "" if layer.sure_hybrids is None else ", and the row below it the same with its sure channels alone"


def selection_words(layer: LayerStudy) -> str:
    """What speaks for which number of modules."""
    found = layer.selection
    if found is None:
        return "unknown"
    best = int(found.n_modules[found.expected_ari.argmax()])
    if found.expected_ari.max() >= ENOUGH:
        said = f"{found.suggested} is the most that another draw of latents is expected to repeat"
    else:
        said = f"another draw of latents is expected to repeat none of them well, {best} best"
    return (
        f"{said} (marked); the stability between subsets of the channels says nothing about the latents, and variance "
        "explained always grows"
    )


def quality_sentence(layer: LayerStudy) -> str | None:
    """Whether modules act in a place of their own."""
    quality = layer.quality
    if quality is None:
        return None
    parts = [
        f"module {k} {own:.2f} (random sets of as many channels: {np.mean(random):.2f})"
        for k, own, random in zip(quality.provenance["modules"], quality.specificity, quality.random, strict=True)
    ]
    return (
        "Influence in the quarter of the image where a module's template is largest, over that elsewhere, on the "
        f"second draw's pairs: {listing(parts)}."
    )


def _subsets_sentence(layer: LayerStudy) -> str:
    k = layer.finder.n_modules
    if (missing := no_subsets(layer)) is not None:
        return f"Subsets of the channels were not compared: {missing}."
    return (
        f"Between subsets of the channels of one draw, which say nothing about the latents, "
        f"{percent(layer.at('consistency', k))} keep their label with NMF and "
        f"{percent(layer.at('consistency', k, 'kmeans'))} with k-means."
    )


def no_subsets(layer: LayerStudy) -> str | None:
    """Why nothing is known about subsets of the channels; None where something is."""
    if layer.stability["nmf"].consistency.size:
        return None
    return "not enough channels" if layer.finder.n_modules > layer.most_in_subsets else "no repetitions"


def stability_panels(layer: LayerStudy) -> str:
    """What the panels of the stability figure show."""
    if (missing := no_subsets(layer)) is not None:
        return f"between two draws of latents (between subsets of the channels: {missing})"
    return (
        "left and middle between overlapping subsets of the channels (mean ± standard deviation), right between two "
        "draws of latents, which is the harder and the more telling test"
    )


def error_sentence(layer: LayerStudy) -> str:
    """How precise the maps are."""
    errors = layer.relative_errors
    dead = layer.layer.channels - len(errors)
    dead_words = "no channel is" if dead == 0 else f"{dead} channel{'s are' if dead > 1 else ' is'}"
    return (
        f"The standard error of a map is {percent(float(np.median(errors)))} of the map in the median channel and "
        f"{percent(float(np.quantile(errors, 0.95)))} or less in 95 % of them; {dead_words} without any effect."
    )


def verdict_sentence(layer: LayerStudy) -> str:
    """How far to trust the modules, in one line."""
    ari = layer.at("ari", layer.finder.n_modules)
    return f"Two draws of latents give {ari_words(ari)} (adjusted Rand index {ari:.2f})."


def concentration_sentence(layer: LayerStudy) -> str:
    """How unequally influence is spread over channels."""
    influence = np.sort(layer.maps[0].influence.double().numpy())[::-1]
    tenth = max(1, len(influence) // 10)
    share = float(influence[:tenth].sum() / max(influence.sum(), 1e-30))
    return f"The {tenth} strongest of {len(influence)} channels have {percent(share)} of the influence."


def error_place_sentence(layer: LayerStudy) -> str:
    """Whether maps are least certain where they are largest."""
    maps, errors = (value.flatten(1).double().numpy() for value in (layer.maps[0].maps, layer.maps[0].standard_error))
    alive = (maps.std(1) > 0) & (errors.std(1) > 0)
    pairs = zip(maps[alive], errors[alive], strict=True)
    correlation = float(np.median([np.corrcoef(one, two)[0, 1] for one, two in pairs])) if alive.any() else 0.0
    words = "the estimate is least certain where the channel acts most" if correlation > 0.5 else "they differ in place"
    return f"Median correlation with the maps: {correlation:.2f}; {words}."


def successive_sentence(study: Study, cross: CrossLayer) -> str:
    """How far hybrids over two layers are from the base, beside those over one."""

    def distance(hybrids: Hybrids) -> float:
        return float((hybrids.images - hybrids.base).abs().mean())

    alone = {layer.layer.name: distance(layer.hybrids) for layer in study.layers if layer.layer.name in cross.layers}
    singles = listing([f"{value:.3f} for {name} alone" for name, value in alone.items()])
    return f"Mean distance of the hybrids from the base: {distance(cross.hybrids):.3f} for both layers, {singles}."


def summary(study: Study, regions: Regions) -> list[str]:
    """The study in a few sentences."""
    sentences = []
    for layer in study.layers:
        parts = [template_sentence(layer, regions), earlier_sentence(layer, regions), verdict_sentence(layer)]
        parts += [] if layer.selection is None else [sure_sentence(layer)]
        sentences.append(" ".join(part for part in parts if part))
    return sentences
