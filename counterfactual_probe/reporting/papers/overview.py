"""All layers of a study together: the summary, the table, and hybrids over successive layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ...base.display.description import Table
from ...base.display.text import counted
from ...base.files import safe_name
from ...hybrids.result import Hybrids
from ...modules import plots
from ...modules.confidence import CONFIDENT
from ..section import CaptionedFigure, Section, shown
from ..words import listing, percent
from .study import CrossLayer, PapersLayer, PapersStudy


def describe_overview(study: PapersStudy, in_short: Sequence[str], note: str) -> Section:
    """The sections ``in_short``, a table of the layers, and influence against the number of modules.

    ``note`` says how the regions were made that templates are named after.
    """
    return Section(
        "In short",
        tables=(_table(study, note),),
        figures=tuple(_influence_figures(study)),
        points=tuple(in_short),
    )


def describe_successive(study: PapersStudy, names: Mapping[str, Sequence[str]]) -> Section:
    """Hybrids by matched modules over two successive layers; ``names`` of the modules by layer."""
    return Section(
        "Two successive layers",
        figures=tuple(_successive_figure(study, cross, names) for cross in study.successive),
        results={f"hybrids-{safe_name(*cross.layers)}.safetensors": cross.hybrids for cross in study.successive},
    )


def _table(study: PapersStudy, more: str) -> Table:
    head = (
        "layer",
        "channels",
        "size",
        f"modules (K\u00a0=\u00a0{study.settings.n_modules})",
        "ARI of two samples",
        "expected ARI",
        "confident channels",
        "same label",
        "NMF",
        "k\u2011means",
    )
    note = (
        "ARI and same label: between two samples of latents. Expected ARI: what the first sample alone predicts. "
        f"Confident: channels that stay in their module in {percent(CONFIDENT)} or more of its bootstrap resamples. "
        "NMF and k-means: share of channels with the same label in two subsets of the channels."
    )
    rows = tuple(_row(layer, study.settings.n_modules) for layer in study.layers)
    return Table(head, rows, f"{note} {more}".strip())


def _row(layer: PapersLayer, k: int) -> tuple[str, ...]:
    same = [layer.why_no_subsets or percent(layer.at("consistency", k, method)) for method in ("nmf", "kmeans")]
    return (
        layer.layer.name,
        str(layer.layer.channels),
        "×".join(map(str, layer.layer.size)),
        " + ".join(str(units.size) for units in layer.modules),
        f"{layer.at('ari', k):.2f}",
        *_expected_cells(layer),
        percent(layer.at("draw_agreement", k)),
        *same,
    )


def _expected_cells(layer: PapersLayer) -> tuple[str, str]:
    """Expected ARI and share of confident channels."""
    if layer.selection is None:
        return "too few pairs", "–"
    stability = layer.finder.confidence_
    return f"{layer.expected_ari:.2f}", percent(float((stability[np.isfinite(stability)] >= CONFIDENT).mean()))


def _influence_figures(study: PapersStudy) -> Iterator[CaptionedFigure]:
    """Influence against the number of modules and of channels (S001 Fig. 3, right)."""
    by_layer = {layer.layer.name: layer.influence_by_count for layer in study.layers if layer.influence_by_count}
    if not by_layer:
        return
    pairs = counted(study.settings.n_pairs, "pair")
    parameters = f"{study.generator}, K = {_range(study.settings.counts)}; means over {pairs}"
    counts = {name: np.array(list(maps)) for name, maps in by_layer.items()}
    means = {name: np.array([float(m.influence.mean()) for m in maps.values()]) for name, maps in by_layer.items()}
    falling = sum(values[-1] < values[0] for values in means.values())
    yield shown(
        "influence_by_modules",
        plots.plot_influence_by_count(counts, means)[0],
        f"Mean influence of a module against the number of modules: in {falling} of {len(means)} layers it is smaller "
        "with the most modules than with the fewest.",
        parameters,
        narrow=True,
    )
    sizes = {name: np.array([size for m in maps.values() for size in m.sizes]) for name, maps in by_layer.items()}
    influences = {name: np.concatenate([m.influence.numpy() for m in maps.values()]) for name, maps in by_layer.items()}
    fits = {name: plots.regression(sizes[name], influences[name]) for name in by_layer}
    lines = "; ".join(f"{name}: {slope:.2g} per channel, R² {fit:.2f}" for name, (slope, _, fit) in fits.items())
    yield shown(
        "influence_by_channels",
        plots.plot_influence_by_size(sizes, influences)[0],
        f"Influence of each module against its number of channels, with a least-squares line per layer ({lines}; "
        "they curve because the axis is logarithmic).",
        parameters,
        narrow=True,
    )


def _successive_figure(study: PapersStudy, cross: CrossLayer, names: Mapping[str, Sequence[str]]) -> CaptionedFigure:
    first, second = cross.layers
    labels = [
        f"{names[first][one]}\nwith {names[second][other]}\ncos {cosine:.2f}"
        for (one, other), cosine in zip(cross.match.pairs, cross.match.cosines, strict=True)
    ]
    return shown(
        f"successive_{safe_name(first)}_{safe_name(second)}",
        cross.hybrids.plot(labels=labels)[0],
        f"Hybrids by a module of {first} together with its match in {second} (templates matched one to one by cosine). "
        f"{_distance_sentence(study, cross)}",
        f"{study.generator}, layers {first} and {second}, K = {study.settings.n_modules}",
        photographs=True,
    )


def _distance_sentence(study: PapersStudy, cross: CrossLayer) -> str:
    """How far hybrids over both layers are from the base, compared with hybrids over one layer."""

    def distance(hybrids: Hybrids) -> float:
        return float((hybrids.images - hybrids.base).abs().mean())

    alone = {layer.layer.name: distance(layer.hybrids) for layer in study.layers if layer.layer.name in cross.layers}
    singles = listing([f"{value:.3f} for {name} alone" for name, value in alone.items()])
    return f"Mean distance of the hybrids from the base: {distance(cross.hybrids):.3f} for both layers, {singles}."


def _range(counts: tuple[int, ...]) -> str:
    return f"{min(counts)}…{max(counts)}" if len(counts) > 1 else str(counts[0])
