"""The figures of a study: each one a picture, a sentence on what it shows, and its parameters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast, get_args

import numpy as np
import torch

from ..base import drawing
from ..base.display.plot import png
from ..base.files import safe_name
from ..modules import plots
from ..modules.clustering import cosine_matrix, match_labels
from . import sentences as wording
from .study import CrossLayer, LayerStudy, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# How the names of the study's own figures start.
_PHOTOGRAPHS = ("hybrids_", "one_source_", "successive_")
_NARROW = ("channels_", "confidence_", "selection_", "influence_by_", "templates_")


@dataclass(frozen=True)
class Shown:
    """A figure as PNG with its words."""

    name: str
    png: bytes
    sentence: str
    parameters: str
    narrow: bool = False


def overview_figures(study: Study) -> Iterator[Shown]:
    """Influence against the number of modules and of channels (S001 Fig. 3, right)."""
    sizes, influences, counts, means = {}, {}, {}, {}
    for layer in study.layers:
        by_count = layer.influence_by_count
        if not by_count:
            continue
        name = layer.layer.name
        counts[name] = np.array(list(by_count))
        means[name] = np.array([float(maps.influence.mean()) for maps in by_count.values()])
        sizes[name] = np.array([units.size for maps in by_count.values() for units in maps.units])
        influences[name] = np.concatenate([maps.influence.numpy() for maps in by_count.values()])
    if not counts:
        return
    about = _about(study, f"K = {_range(study.settings.counts)}; means over {study.settings.n_pairs} pairs")
    figure, _ = plots.plot_influence_by_count(counts, means)
    falling = sum(values[-1] < values[0] for values in means.values())
    yield shown(
        "influence_by_modules",
        figure,
        f"Mean influence of a module against the number of modules: with the most modules it is smaller than with the "
        f"fewest in {falling} of {len(means)} layers.",
        about,
    )
    fits = {name: plots.regression(sizes[name], influences[name]) for name in sizes}
    figure, _ = plots.plot_influence_by_size(sizes, influences)
    lines = "; ".join(f"{name}: {slope:.2g} per channel, R² {fit:.2f}" for name, (slope, _, fit) in fits.items())
    yield shown(
        "influence_by_channels",
        figure,
        f"Influence of each module against its number of channels, with a least-squares line per layer ({lines}; "
        "they curve because the axis is logarithmic).",
        about,
    )


def layer_figures(study: Study, layer: LayerStudy) -> Iterator[Shown]:
    """Templates, stability and hybrids of one layer, then its channels one by one."""
    settings = study.settings
    about = f"layer {layer.layer.name}, {settings.n_pairs} pairs, seed {settings.draws[0]}, K = {settings.n_modules}"
    found = _about(study, about)
    yield from _module_figures(study, layer, found)
    yield from _channel_figures(layer, found)


def _module_figures(study: Study, layer: LayerStudy, found: str) -> Iterator[Shown]:
    name, settings = layer.layer.name, study.settings
    figure, _ = plots.plot_templates(_templates(layer), _template_titles(layer))
    yield shown(
        f"templates_{name}",
        figure,
        "Templates of the modules: where in the image each one acts. Top row: first draw of latents; bottom row: the "
        "matched templates of an independent draw; the closer the rows, the more the modules can be trusted.",
        f"{found}; second draw seed {settings.draws[1]}; NMF of bits above the 75th percentile",
    )
    yield shown(
        f"stability_{name}",
        _stability_figure(layer),
        f"How well the modules come back: {wording.stability_panels(layer)}.",
        _about(
            study,
            f"layer {name}, {layer.stability['nmf'].consistency.shape[1]} repetitions, draws {settings.draws[0]}, "
            f"{settings.draws[1]}",
        ),
    )
    if layer.selection is not None:
        yield shown(
            f"selection_{name}",
            layer.selection.plot()[0],
            f"How many modules: {wording.selection_words(layer)}.",
            found,
        )
    yield shown(
        f"hybrids_{name}",
        _hybrids_figure(layer),
        "Hybrids: each column is a pair; a module's row shows the base with that module's channels set to the values "
        f"they take for the source{wording.sure_rows(layer)}.",
        found,
    )
    yield shown(
        f"one_source_{name}",
        _one_source_figure(layer),
        "One source over many bases, and the control: each module's row is followed by images of mixed latents, in "
        "which the same share of latent coordinates comes from the source instead.",
        f"{found}; shares {', '.join(f'{share:.2f}' for share in _shares(layer))}",
    )


def _channel_figures(layer: LayerStudy, found: str) -> Iterator[Shown]:
    name, maps, labels = layer.layer.name, layer.maps[0], layer.finder.labels_
    order = np.lexsort((-maps.influence.numpy(), np.where(labels < 0, len(labels), labels)))
    figure, _ = drawing.plot_mosaic(maps.maps.numpy()[order], modules=labels[order].tolist())
    yield shown(
        f"influence_{name}",
        figure,
        "Influence map of every channel, framed in its module's colour, the strongest of each module first; every map "
        "is scaled to its own largest value.",
        found,
    )
    if layer.selection is not None:
        confidence = layer.finder.confidence_
        figure, _ = plots.plot_confidence(maps.influence.numpy(), confidence, labels.tolist())
        yield shown(
            f"confidence_{name}",
            figure,
            "Which channels to trust: each bar is a channel, blue where resampled pairs keep it in its module, red "
            f"where they do not. {wording.sure_sentence(layer)}",
            found,
        )
    figure, _ = plots.plot_channel_influence(
        maps.influence.numpy(), maps.influence_standard_error.numpy(), labels.tolist()
    )
    yield shown(
        f"channels_{name}",
        figure,
        "Influence of every channel (mean of its map) with ± one standard error. "
        f"{wording.concentration_sentence(layer)}",
        found,
    )
    errors = maps.standard_error.numpy()
    figure, _ = drawing.plot_mosaic(errors[order], modules=labels[order].tolist())
    yield shown(
        f"standard_errors_{name}",
        figure,
        "Standard errors of the same maps, in the same order, each scaled to its own largest value. "
        f"{wording.error_place_sentence(layer)}",
        found,
    )


def successive_figure(study: Study, cross: CrossLayer) -> Shown:
    """Hybrids by matched modules over two successive layers."""
    labels = [
        f"{first + 1} with {second + 1}\ncos {cosine:.2f}"
        for (first, second), cosine in zip(cross.match.pairs, cross.match.cosines, strict=True)
    ]
    figure, _ = cross.hybrids.plot(labels=labels)
    return shown(
        f"successive_{cross.layers[0]}_{cross.layers[1]}",
        figure,
        f"Hybrids by a module of {cross.layers[0]} together with its match in {cross.layers[1]} (templates matched one "
        f"to one by cosine). {wording.successive_sentence(study, cross)}",
        _about(study, f"layers {cross.layers[0]} and {cross.layers[1]}, K = {study.settings.n_modules}"),
    )


def _templates(layer: LayerStudy) -> drawing.Floats:
    """Templates of the first draw over the matched ones of the second."""
    first, second = (finder.templates_ for finder in layer.finders)
    return np.stack([first, second[_matched(layer)]])


def _matched(layer: LayerStudy) -> np.ndarray[Any, np.dtype[np.int64]]:
    one, two = (finder.labels_ for finder in layer.finders)
    both = (one >= 0) & (two >= 0)
    return match_labels(one[both], two[both], layer.finder.n_modules)


def _template_titles(layer: LayerStudy) -> list[str]:
    flat = [finder.templates_.reshape(layer.finder.n_modules, -1) for finder in layer.finders]
    order = _matched(layer)
    cosines = cosine_matrix(*flat)[np.arange(len(order)), order]
    sizes = [[units.size for units in finder.unit_sets()] for finder in layer.finders]
    return [
        f"module {k + 1}\n{sizes[0][k]} / {sizes[1][other]} ch.\ncos {cosines[k]:.2f}" for k, other in enumerate(order)
    ]


def _stability_figure(layer: LayerStudy) -> Figure:
    from matplotlib.figure import Figure as NewFigure

    curves = {"NMF": layer.stability["nmf"], "k-means": layer.stability["kmeans"]}
    # Without repetitions there is nothing between subsets to show.
    quantities = [quantity for quantity in get_args(plots.Quantity) if getattr(layer.stability["nmf"], quantity).size]
    figure = NewFigure(figsize=(11 / 3 * len(quantities), 3.2), layout="constrained")
    for ax, quantity in zip(figure.subplots(1, len(quantities), squeeze=False)[0], quantities, strict=True):
        values = {name: (found.n_modules, getattr(found, quantity)) for name, found in curves.items()}
        plots.plot_stability(values, quantity=quantity, ax=ax)
    return figure


def _hybrids_figure(layer: LayerStudy) -> Figure:
    """Base, source and each module's hybrids, those of its sure channels below."""
    hybrids, sure = layer.hybrids, layer.sure_hybrids
    rows, labels = [hybrids.base, cast(torch.Tensor, hybrids.source)], ["base", "source"]
    for k, units in enumerate(layer.modules):
        rows.append(hybrids.images[k])
        labels.append(f"module {k + 1}\n{units.size} ch.")
        if sure is not None:
            rows.append(sure.images[k])
            labels.append(f"its {sure.units[k].size}\nsure ch.")
    low, high = hybrids.provenance["image_range"]
    return drawing.plot_images(torch.stack(rows).float().cpu().numpy(), labels, (low, high))[0]


def _shares(layer: LayerStudy) -> list[float]:
    return [units.size / layer.layer.channels for units in layer.modules]


def _one_source_figure(layer: LayerStudy) -> Figure:
    hybrids = layer.one_source
    source = cast(torch.Tensor, hybrids.source)
    # The source once, in the corner; it is the same in every column.
    corner = torch.full_like(source, hybrids.provenance["image_range"][1])
    corner[0] = source[0]
    rows, labels = [corner, hybrids.base], ["source", "bases"]
    for k, share in enumerate(_shares(layer)):
        rows += [hybrids.images[k], layer.mixed[k].to(hybrids.images)]
        labels += [f"module {k + 1}", f"latents mixed\n{100 * share:.0f} %"]
    low, high = hybrids.provenance["image_range"]
    figure, _ = drawing.plot_images(torch.stack(rows).float().cpu().numpy(), labels, (low, high))
    return figure


def _about(study: Study, what: str) -> str:
    return f"{study.generator}, {what}"


def _range(counts: tuple[int, ...]) -> str:
    return f"{min(counts)}…{max(counts)}" if len(counts) > 1 else str(counts[0])


def shown(
    name: str, figure: Figure, sentence: str, parameters: str, *, photographs: bool | None = None, narrow: bool = False
) -> Shown:
    """A matplotlib figure for the report.

    >>> from matplotlib.figure import Figure
    >>> shown("errors", Figure(), "The error of every layer.", "64 images").name
    'errors'

    ``photographs`` need more colours than lines do; ``narrow`` figures do not fill the page's width.
    """
    if photographs is None:
        photographs = name.startswith(_PHOTOGRAPHS)
    picture = png(figure, photographs=photographs)
    return Shown(safe_name(name), picture, sentence, parameters, narrow or name.startswith(_NARROW))
