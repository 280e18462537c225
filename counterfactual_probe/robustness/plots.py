"""Figures of a robustness assessment: what classifiers see in hybrids, by layer and module (S003 §4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..base.display.plot import Plot
from ..base.drawing import PALETTE, Floats, canvas, displayable, label, name_ticks, tile

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKERS = "os^Dv*"


class Names(NamedTuple):
    """Names along the dimensions of the arrays; the classes are those of bases and sources."""

    classifiers: tuple[str, ...]
    layers: tuple[str, ...]
    modules: tuple[str, ...]
    classes: tuple[str, ...]


def module_title(name: str) -> str:
    """A module's name in figures: "module 1" if it is a bare number."""
    return f"module {name}" if name.isdecimal() else name


def plot_recognition_and_distance(
    curve: Floats, error: Floats, distances: Floats, names: Names
) -> Plot[npt.NDArray[np.object_]]:
    """Both panels of S003 Fig. 6; returns their axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.2, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.4, 1])
    plot_recognition(curve, error, names, ax=left)
    plot_distance(distances, names, ax=right)
    return Plot(figure, np.array([left, right]))


def plot_recognition(curve: Floats, error: Floats, names: Names, *, ax: Axes | None = None) -> Plot[Axes]:
    """How often hybrids are recognised as one of their originals, (classifier, layer), ± one standard error."""
    figure, ax = canvas(ax, 5.4, 3.6)
    places, errors = np.arange(len(names.layers)), np.nan_to_num(error)
    for c, name in enumerate(names.classifiers):
        beside = places + 0.06 * (c - (len(names.classifiers) - 1) / 2)  # so that no bar hides another
        style: dict[str, Any] = {"marker": _MARKERS[c % len(_MARKERS)], "color": PALETTE[c % len(PALETTE)]}
        ax.errorbar(beside, curve[c], errors[c], label=label(name), capsize=3, **style)
    _layers(names, ax)
    base, source = (label(name, 16) for name in names.classes)
    ax.set_ylabel(f"recognised as {base} or {source}\n(the larger rate)")
    ax.set_ylim(0, 1.05)
    ax.legend(frameon=False, fontsize="small", loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return Plot(figure, ax)


def plot_distance(distances: Floats, names: Names, *, ax: Axes | None = None) -> Plot[Axes]:
    """Mean pixel distance of hybrids to both originals, by layer; averaged over modules, ± one standard error.

    ``distances`` are (layer, module, pair, class), NaN where a layer has no such module.
    """
    figure, ax = canvas(ax, 4.2, 3.6)
    per_pair = np.nanmean(distances, axis=1)
    mean, pairs = per_pair.mean(1), per_pair.shape[1]
    error = per_pair.std(1, ddof=1) / np.sqrt(pairs) if pairs > 1 else np.zeros_like(mean)
    for side, name in enumerate(names.classes):
        what = f"to the {('base', 'source')[side]} ({label(name, 24)})"
        style: dict[str, Any] = {"marker": _MARKERS[side], "color": ("#444444", "#999999")[side]}
        ax.errorbar(range(len(mean)), mean[:, side], error[:, side], label=what, capsize=3, **style)
    _layers(names, ax)
    ax.set_ylabel("mean |hybrid − original|")
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False, fontsize="small", loc="lower left", bbox_to_anchor=(0, 1))
    return Plot(figure, ax)


def plot_entropies(entropies: Floats, names: Names, classifier: str, pooled: int) -> Plot[npt.NDArray[np.object_]]:
    """Histograms of a classifier's entropies (layer, module, pair) over so many classes: a column for each layer, a row
    for each module (S003 Fig. 14 and 16)."""
    from matplotlib.figure import Figure

    down, across = len(names.modules), len(names.layers)
    figure = Figure(figsize=(1.2 + 1.9 * across, 0.8 + 1.4 * down), layout="constrained")
    axes = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    edges = np.linspace(0, np.log(pooled), 16)
    for layer in range(across):
        for module in range(down):
            _histogram(axes[module, layer], entropies[layer, module], edges)
        axes[0, layer].set_title(label(names.layers[layer], 24), fontsize="medium")
        axes[-1, layer].set_xlabel("entropy (nats)", fontsize="small")
    for module, name in enumerate(names.modules):
        axes[module, 0].set_ylabel(f"{label(module_title(name), 20)}\nhybrids", fontsize="small")
    figure.suptitle(f"{label(classifier)}, over {pooled} classes; line: mean", fontsize="medium")
    return Plot(figure, axes)


def plot_ranking(
    classifiers: Sequence[str], score: Floats, low: Floats, high: Floats, *, ax: Axes | None = None
) -> Plot[Axes]:
    """Scores (classifiers,) with their intervals, the most robust on top."""
    figure, ax = canvas(ax, 5.4, 0.8 + 0.3 * len(classifiers))
    places = np.arange(len(classifiers))
    ax.errorbar(score, places, xerr=np.stack([score - low, high - score]), fmt="o", color=PALETTE[0], capsize=3)
    ax.set_yticks(places, [label(name) for name in classifiers])
    ax.set_ylim(len(classifiers) - 0.5, -0.5)
    ax.set_xlabel("hybrids recognised as one of their originals")
    return Plot(figure, ax)


def plot_disagreements(
    images: Floats,
    words: Sequence[Sequence[str]],
    classes: Sequence[str],
    image_range: tuple[float, float],
    *,
    ax: Axes | None = None,
) -> Plot[Axes]:
    """Base, hybrid and source (k, 3, C, H, W) of the largest disagreements, a row each, with text beside it."""
    figure, ax = canvas(ax, 9.0, max(1.5, 1.5 * len(images)))
    ax.set_axis_off()
    if not len(images):
        ax.set_title("no hybrid was kept", fontsize="medium")
        return Plot(figure, ax)
    cells = displayable(images, image_range)  # (k, 3, H, W, 3)
    height, width = cells.shape[2:4]
    gap = max(2, height // 24)
    sheet = tile(cells, gap=gap)
    ax.imshow(sheet, interpolation="nearest")
    ax.set_xlim(-0.5, sheet.shape[1] + 2.4 * width)  # room for the words
    base, source = (label(name, 12) for name in classes)
    for column, name in enumerate((f"base ({base})", "hybrid", f"source ({source})")):
        ax.text(column * (width + gap) + width / 2, -gap, name, ha="center", va="bottom", fontsize="small")
    for k, lines in enumerate(words):
        middle = k * (height + gap) + height / 2
        text = "\n".join(map(label, lines))
        ax.text(sheet.shape[1] + 2 * gap, middle, text, va="center", fontsize="small")
    return Plot(figure, ax)


def _histogram(ax: Axes, entropies: Floats, edges: Floats) -> None:
    known = entropies[np.isfinite(entropies)]
    ax.tick_params(labelsize="small")
    if not known.size:
        ax.text(0.5, 0.5, "no such module", transform=ax.transAxes, ha="center", va="center", fontsize="small")
        return
    ax.hist(np.clip(known, edges[0], edges[-1]), bins=list(edges), color=PALETTE[0])
    ax.axvline(float(known.mean()), color=PALETTE[5], lw=1.5)


def _layers(names: Names, ax: Axes) -> None:
    name_ticks(ax, names.layers)
    ax.set_xlabel("layer, early to late")
