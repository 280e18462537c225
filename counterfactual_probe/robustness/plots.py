"""Figures of a robustness assessment: what classifiers see in hybrids, by layer and module (S003 §4.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..base.drawing import PALETTE, canvas, displayable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKERS = "os^Dv*"


def plot_recognition_and_distance(result: Any) -> tuple[Figure, Any]:
    """Both panels of S003 Fig. 6; returns their axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.2, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.4, 1])
    plot_recognition(result, ax=left)
    plot_distance(result, ax=right)
    return figure, np.array([left, right])


def plot_recognition(result: Any, *, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """How often hybrids are seen as one of their originals, by layer; averaged over modules, ± one standard error."""
    figure, ax = canvas(ax, 5.4, 3.6)
    curve, error = result.curve, np.nan_to_num(result.curve_standard_error)
    places = np.arange(len(result.layers))
    for c, name in enumerate(result.classifiers):
        beside = places + 0.06 * (c - (len(result.classifiers) - 1) / 2)  # so that no bar hides another
        style: dict[str, Any] = {"marker": _MARKERS[c % len(_MARKERS)], "color": PALETTE[c % len(PALETTE)]}
        ax.errorbar(beside, curve[c], error[c], label=name, capsize=3, **style)
    _layers(result, ax)
    ax.set_ylabel(f"seen as {result.classes[0]} or {result.classes[1]}\n(the larger rate)")
    ax.set_ylim(0, 1.05)
    ax.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(0, -0.2), ncols=2)
    return figure, ax


def plot_distance(result: Any, *, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """Mean pixel distance of hybrids to both originals, by layer; averaged over modules, ± one standard error."""
    figure, ax = canvas(ax, 4.2, 3.6)
    per_pair = np.nanmean(result.distances, axis=1)  # (layer, pair, class)
    mean = per_pair.mean(1)
    error = per_pair.std(1, ddof=1) / np.sqrt(result.n_pairs) if result.n_pairs > 1 else np.zeros_like(mean)
    for side, name in enumerate(result.classes):
        what = f"to the {('base', 'source')[side]} ({name})"
        style: dict[str, Any] = {"marker": _MARKERS[side], "color": ("#444444", "#999999")[side]}
        ax.errorbar(range(len(mean)), mean[:, side], error[:, side], label=what, capsize=3, **style)
    _layers(result, ax)
    ax.set_ylabel("mean |hybrid − original|")
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(0, -0.2))
    return figure, ax


def plot_entropies(result: Any, classifier: int) -> tuple[Figure, Any]:
    """Histograms of a classifier's entropy: a column for each layer, a row for each module (S003 Fig. 14 and 16)."""
    from matplotlib.figure import Figure

    down, across = len(result.modules), len(result.layers)
    figure = Figure(figsize=(1.2 + 1.9 * across, 0.8 + 1.4 * down), layout="constrained")
    axes = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    pooled = len(result.provenance["classifiers"][classifier]["pooled"])
    edges = np.linspace(0, np.log(pooled), 16)
    for layer in range(across):
        for module in range(down):
            _histogram(axes[module, layer], result.entropies[classifier, layer, module], edges)
        axes[0, layer].set_title(result.layers[layer], fontsize="medium")
        axes[-1, layer].set_xlabel("entropy (nats)", fontsize="small")
    for module, name in enumerate(result.modules):
        axes[module, 0].set_ylabel(f"module {name}\nhybrids", fontsize="small")
    figure.suptitle(f"{result.classifiers[classifier]}, over {pooled} classes; line: mean", fontsize="medium")
    return figure, axes


def plot_disagreements(result: Any, *, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """Base, hybrid and source of what classifiers disagree about most, a row each, with every answer beside it."""
    found = result.disagreements()
    figure, ax = canvas(ax, 9.0, max(1.5, 1.5 * len(found)))
    ax.set_axis_off()
    if not found:
        ax.set_title("no hybrid was kept", fontsize="medium")
        return figure, ax
    low, high = result.provenance["image_range"]
    cells = displayable(result.shown.numpy(), (low, high))  # (k, 3, H, W, 3)
    height, width = cells.shape[2:4]
    gap = max(2, height // 24)
    sheet = np.ones((len(found) * (height + gap) - gap, 3 * (width + gap) - gap, 3))
    for k, row in enumerate(cells):
        for column, image in enumerate(row):
            top, left = k * (height + gap), column * (width + gap)
            sheet[top : top + height, left : left + width] = image
    ax.imshow(sheet, interpolation="nearest")
    ax.set_xlim(-0.5, sheet.shape[1] + 2.4 * width)  # room for the words
    for column, name in enumerate((f"base ({result.classes[0]})", "hybrid", f"source ({result.classes[1]})")):
        ax.text(column * (width + gap) + width / 2, -gap, name, ha="center", va="bottom", fontsize="small")
    for k, item in enumerate(found):
        said = [f"{name}: {answer} ({probability:.2f})" for name, (answer, probability) in item["answers"].items()]
        where = f"{item['layer']}, module {item['module']}, pair {item['pair']}"
        middle = k * (height + gap) + height / 2
        ax.text(sheet.shape[1] + 2 * gap, middle, "\n".join([where, *said]), va="center", fontsize="small")
    return figure, ax


def _histogram(ax: Axes, entropies: Any, edges: Any) -> None:
    known = entropies[np.isfinite(entropies)]
    ax.tick_params(labelsize="small")
    if not known.size:
        ax.text(0.5, 0.5, "no such module", transform=ax.transAxes, ha="center", va="center", fontsize="small")
        return
    ax.hist(np.clip(known, edges[0], edges[-1]), bins=edges, color=PALETTE[0])
    ax.axvline(float(known.mean()), color=PALETTE[5], lw=1.5)


def _layers(result: Any, ax: Axes) -> None:
    ax.set_xticks(range(len(result.layers)), result.layers)
    ax.set_xlabel("layer, early to late")
