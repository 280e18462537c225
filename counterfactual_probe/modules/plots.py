"""Figures of modules: templates, stability, the choice of their number, confidence and influence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from textwrap import wrap
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from ..base.display.plot import Plot
from ..base.drawing import (
    NO_MODULE_COLOUR,
    PALETTE,
    Floats,
    canvas,
    label,
    module_colour,
    name_ticks,
    tile,
    without_frame,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LETTERS_ABOVE_BARS = 12  # on a line of a module's name

Quantity: TypeAlias = Literal["consistency", "cosine", "ari"]


def plot_templates(templates: Floats, titles: Sequence[str], *, ax: Axes | None = None) -> Plot[Axes]:
    """Templates (rows, K, H, W) or (K, H, W), columns titled; each on its own scale."""
    from matplotlib import colormaps

    grid = templates[None] if templates.ndim == 3 else templates
    down, across, height, width = grid.shape
    largest = grid.max(axis=(2, 3), keepdims=True)
    cells = colormaps["viridis"](grid / np.where(largest > 0, largest, 1))[..., :3]
    figure, ax = canvas(ax, 2.3 * across, 2.3 * down * height / width + 0.5)
    ax.imshow(tile(cells, gap=max(2, height // 16)), interpolation="nearest")
    step = width + max(2, height // 16)
    ax.set_xticks([step * i + width / 2 - 0.5 for i in range(across)], [label(title, 26) for title in titles])
    ax.xaxis.tick_top()
    ax.set_yticks([])
    without_frame(ax)
    return Plot(figure, ax)


def plot_stability(
    curves: Mapping[str, tuple[npt.NDArray[np.int64], Floats]],
    *,
    quantity: Quantity = "consistency",
    kind: str = "channel",
    ax: Axes | None = None,
) -> Plot[Axes]:
    """A stability measure against the number of modules (S003 Fig. 9).

    One line per method, ``{name: (numbers of modules, values)}``; values (K,) or (K, repetitions),
    of which mean and standard deviation are shown. ``kind`` is what the clustered units are.
    """
    names = {
        "consistency": f"label consistency\n(subsets of {kind}s)",
        "cosine": f"template cosine\n(subsets of {kind}s)",
        "ari": "adjusted Rand index\n(two samples of latents)",
    }
    figure, ax = canvas(ax, 4.2, 3.2)
    for i, (name, (numbers, values)) in enumerate(curves.items()):
        mean = values if values.ndim == 1 else values.mean(1)
        spread = None if values.ndim == 1 else values.std(1)
        # Slightly shifted, so that error bars do not overlap.
        at = numbers + 0.06 * (i - (len(curves) - 1) / 2)
        ax.errorbar(
            at, mean, spread, label=label(name), color=PALETTE[i % len(PALETTE)], marker="os^D"[i % 4], capsize=3
        )
    ax.set_xlabel("number of modules K")
    ax.set_ylabel(names[quantity])
    ax.set_xticks(sorted({int(k) for numbers, _ in curves.values() for k in numbers}))
    ax.set_ylim(min(0.0, ax.get_ylim()[0]), 1.03)
    ax.legend(frameon=False)
    return Plot(figure, ax)


def plot_selection(
    numbers: npt.NDArray[np.int64],
    consistency: Floats,
    expected_ari: Floats,
    variance_explained: Floats,
    suggested: int,
    *,
    ax: Axes | None = None,
) -> Plot[Axes]:
    """All measures against the number of modules, with the suggested number marked."""
    figure, ax = canvas(ax, 5.2, 3.4)
    ax.axvline(suggested, color="0.85", lw=8, zorder=0)
    if consistency.size:
        ax.errorbar(
            numbers - 0.05, consistency.mean(1), consistency.std(1), label="consistency of subsets", marker="o",
            capsize=3, color=PALETTE[0],
        )  # fmt: skip
    ax.plot(numbers, expected_ari, marker="s", label="expected ARI of another sample", color=PALETTE[1])
    ax.plot(numbers + 0.05, variance_explained, marker="^", label="variance explained", color=PALETTE[2])
    ax.set_xlabel("number of modules K")
    ax.set_xticks(numbers)
    ax.set_ylim(min(0.0, float(expected_ari.min())), 1.03)
    # Beside the axes: curves may be anywhere inside.
    ax.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    return Plot(figure, ax)


def plot_gaps(gap: Floats, limits: Floats, names: Sequence[str], *, ax: Axes | None = None) -> Plot[Axes]:
    """Gaps around modules (modules,) as diamonds above bars up to what 95 % of the controls have."""
    figure, ax = canvas(ax, 4.4 + 0.8 * len(names), 3.4)
    ax.bar(range(len(names)), limits, 0.5, color="0.85", label="95 % of continua", zorder=0)
    finite = np.isfinite(gap)
    top = 1.2 * float(max(limits.max(), gap[finite].max(initial=1.0)))
    for k, value in enumerate(gap):
        if not np.isnan(value):
            ax.plot(k, min(value, top), "D", color=module_colour(k), label=None if k else "module")
    name_ticks(ax, names)
    ax.set_ylabel("distance to other modules ÷\ndistance within the module")
    ax.set_ylim(0, 1.05 * top)
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return Plot(figure, ax)


def plot_specificity(
    specificity: Floats, random: Floats, names: Sequence[str], *, ax: Axes | None = None
) -> Plot[Axes]:
    """Specificity (modules,) as diamonds among that of random sets (modules, controls), as dots."""
    figure, ax = canvas(ax, 4.4 + 0.8 * len(names), 3.4)
    for k, value in enumerate(specificity):
        ax.plot(np.full(random.shape[1], k), random[k], ".", color=NO_MODULE_COLOUR, label=None if k else "random sets")
        ax.plot(k, value, "D", color=module_colour(k), label=None if k else "module")
    ax.axhline(1, color="0.6", lw=1, ls=":", zorder=0)
    name_ticks(ax, names)
    ax.set_ylabel("influence in its own region ÷\ninfluence elsewhere")
    values = np.concatenate([specificity, random.ravel()])
    ax.set_ylim(0, 1.1 * float(values[np.isfinite(values)].max(initial=1.0)))
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return Plot(figure, ax)


def plot_channel_influence(
    influence: Floats,
    standard_error: Floats,
    labels: Sequence[int],
    *,
    names: Sequence[str] = (),
    ax: Axes | None = None,
) -> Plot[Axes]:
    """Influence of each channel with ± one standard error, in falling order, coloured by module.

    ``names`` are those of the modules; without them, they are numbered.
    """
    figure, ax = canvas(ax, 6.0, 2.8)
    order = np.argsort(-influence, kind="stable")
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    for module in sorted(set(labels)):
        members = np.asarray(labels) == module
        name = _module_label(module, names) if module >= 0 else "no module"
        style: dict[str, Any] = {"fmt": ".", "ms": 3, "lw": 0.6, "color": module_colour(module)}
        ax.errorbar(rank[members], influence[members], standard_error[members], label=name, **style)
    ax.set_xlabel("channels, by influence")
    ax.set_ylabel("influence ± standard error")
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False, ncols=2)
    return Plot(figure, ax)


def _module_label(module: int, names: Sequence[str]) -> str:
    """The name of the module with this label, or its number."""
    return label(names[module]) if names else f"module {module + 1}"


def plot_confidence(
    influence: Floats,
    confidence: Floats,
    labels: Sequence[int],
    *,
    names: Sequence[str] = (),
    ax: Axes | None = None,
) -> Plot[Axes]:
    """The channels of each module, the most confident first: height is influence, colour is confidence.

    ``names`` are those of the modules; without them, they are numbered.
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    figure, ax = canvas(ax, 6.6, 2.8)
    modules = sorted({k for k in labels if k >= 0})
    members = [np.flatnonzero(np.asarray(labels) == k) for k in modules]
    order = np.concatenate([module[np.argsort(-confidence[module], kind="stable")] for module in members])
    colours, scale = colormaps["RdYlBu"], Normalize(0, 1)
    ax.bar(np.arange(len(order)), influence[order], width=1.0, color=colours(scale(confidence[order])))
    edges = np.cumsum([0, *map(len, members)])
    for k, (start, stop) in enumerate(pairwise(edges)):
        if k:
            ax.axvline(start - 0.5, color="black", lw=0.8)
        name = "\n".join(wrap(_module_label(modules[k], names), _LETTERS_ABOVE_BARS))
        ax.text((start + stop - 1) / 2, 0.99, name, transform=ax.get_xaxis_transform(), ha="center", va="top")
    ax.set_xlim(-0.5, len(order) - 0.5)
    ax.set_ylim(0, 1.25 * float(influence[order].max()))
    ax.set_xlabel("channels, by module and confidence")
    ax.set_ylabel("influence")
    figure.colorbar(ScalarMappable(scale, colours), ax=ax, label="confidence", pad=0.02)
    return Plot(figure, ax)


def plot_influence_by_count(
    counts: Mapping[str, Floats], influences: Mapping[str, Floats], *, ax: Axes | None = None
) -> Plot[Axes]:
    """Mean influence of the modules against their number, one line per layer (S001 Fig. 3, top)."""
    figure, ax = canvas(ax, 4.6, 3.4)
    for i, (layer, ks) in enumerate(counts.items()):
        ax.plot(ks, influences[layer], marker="os^D"[i % 4], color=PALETTE[i % len(PALETTE)], label=label(layer))
    ax.set_xlabel("number of modules K")
    ax.set_ylabel("mean influence of a module")
    ax.set_xticks(sorted({int(k) for ks in counts.values() for k in ks}))
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False)
    return Plot(figure, ax)


def plot_influence_by_size(
    sizes: Mapping[str, Floats], influences: Mapping[str, Floats], *, ax: Axes | None = None
) -> Plot[Axes]:
    """Influence of each module against its number of channels, with a regression line per layer
    (S001 Fig. 3, bottom)."""
    figure, ax = canvas(ax, 6.0, 3.4)
    for i, (layer, size) in enumerate(sizes.items()):
        colour, influence = PALETTE[i % len(PALETTE)], influences[layer]
        fit = regression(size, influence)
        name = label(f"{layer} (R² {fit[2]:.2f})")
        ax.scatter(size, influence, s=14, color=colour, marker="os^D"[i % 4], label=name)
        along = np.geomspace(max(size.min(), 1), max(size.max(), 2), 64)
        ax.plot(along, fit[0] * along + fit[1], "--", lw=1, color=colour)
    ax.set_xscale("log", base=2)
    ax.set_xlabel("channels in the module")
    ax.set_ylabel("influence")
    ax.set_ylim(bottom=0)
    # Beside the axes: points may be anywhere inside.
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return Plot(figure, ax)


def regression(x: Floats, y: Floats) -> tuple[float, float, float]:
    """Slope, intercept and R² of a least-squares line; a flat line if x does not vary.

    Not by ``scipy.stats.linregress``, which refuses x that do not vary and takes 0.9 s to import.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    spread, total = ((x - x.mean()) ** 2).sum(), ((y - y.mean()) ** 2).sum()
    slope = ((x - x.mean()) * (y - y.mean())).sum() / spread if spread > 0 else 0.0
    intercept = y.mean() - slope * x.mean()
    residual = ((y - slope * x - intercept) ** 2).sum()
    return float(slope), float(intercept), float(1 - residual / total) if total > 0 else float("nan")
