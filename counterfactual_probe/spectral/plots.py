"""Figures of spectral dependency: histograms of ratios, kernels and their transforms, filter removal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from ..base.display.plot import Plot
from ..base.drawing import PALETTE, canvas, label
from ..base.errors import ProbeError
from .distribution import EDGES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

Counts = npt.NDArray[np.int64]

_WIDTH = 0.05  # of a bar
_GRID = 64  # frequencies per axis of a transform that is shown


def plot_histograms(
    histograms: Mapping[str, Counts],
    *,
    ax: Axes | None = None,
    what: str = "pathways",
    colours: Sequence[str] = PALETTE,
    legend: bool = True,
) -> Plot[Axes]:
    """Histograms over the library's bins, superimposed; 1, where nothing depends on anything, is marked.

    The last bar holds whatever is beyond the axis.
    """
    figure, ax = canvas(ax, 4.2, 3.0)
    top = max(_top(counts) for counts in histograms.values())
    edges = np.arange(0, top + _WIDTH / 2, _WIDTH)
    ax.axvline(1, color="0.6", lw=1, ls=":", zorder=0)
    for (text, counts), colour in zip(histograms.items(), colours, strict=False):
        name, total = label(text), int(counts.sum())
        if not total:
            ax.plot([], [], color=colour, label=f"{name}: all dead")
            continue
        heights = _rebinned(counts, edges) / total
        ax.stairs(heights, edges, fill=True, alpha=0.3, color=colour)
        ax.stairs(heights, edges, color=colour, label=name)
    ax.set_xlim(0, top)
    ax.set_ylim(bottom=0)
    ax.locator_params(axis="x", nbins=6)  # a panel of several is too narrow for more labels
    ax.set_xlabel("spectral dependency ratio")
    ax.set_ylabel(f"share of {what}")
    if legend:
        ax.legend(frameon=False, fontsize="small")
    return Plot(figure, ax)


def _top(counts: Counts) -> float:
    """Where the axis ends: beyond all but a two-hundredth of the ratios, at 2 or later."""
    cumulated = np.cumsum(counts)
    if not cumulated[-1]:
        return 2.0
    last = float(EDGES[int(np.searchsorted(cumulated, 0.995 * cumulated[-1])) + 1])
    return max(2.0, float(np.ceil(last * 4) / 4))


def _rebinned(counts: Counts, edges: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Counts in wider bins; those beyond the last are in it."""
    middles = (EDGES[:-1] + EDGES[1:]) / 2
    places = np.clip(((middles - edges[0]) / _WIDTH).astype(np.int64), 0, len(edges) - 2)
    return np.bincount(places, weights=counts.astype(np.float64), minlength=len(edges) - 1).astype(np.float64)


def plot_layers(
    networks: Sequence[Sequence[tuple[str, Counts]]], names: Sequence[str], *, most: int = 8
) -> Plot[list[Axes]]:
    """A panel for each level, from fine to coarse, with the histograms of the networks' pairs superimposed."""
    from matplotlib.figure import Figure as NewFigure

    levels = min(most, max(len(panels) for panels in networks))
    across = min(levels, 4)
    down = -(-levels // across)
    figure = NewFigure(figsize=(3.3 * across, 2.9 * down + 0.3), layout="constrained")
    axes = list(figure.subplots(down, across, squeeze=False).reshape(-1))
    for level, ax in enumerate(axes):
        if level >= levels:
            ax.set_visible(False)
            continue
        here = [(i, *panels[level]) for i, panels in enumerate(networks) if level < len(panels)]
        counts = {str(i): histogram for i, _, histogram in here}
        plot_histograms(counts, ax=ax, colours=[PALETTE[i] for i, _, _ in here], legend=False)
        ax.set_title("\n".join(label(title) for _, title, _ in here), fontsize="small")
        if level % across:
            ax.set_ylabel("")
    if len(names) > 1:
        from matplotlib.patches import Patch

        handles = [Patch(color=PALETTE[i], alpha=0.6, label=label(name)) for i, name in enumerate(names)]
        figure.legend(handles=handles, loc="outside upper center", ncols=len(names), frameon=False)
    else:
        figure.suptitle(f"{label(names[0])}, from fine to coarse", fontsize="medium")
    return Plot(figure, axes[:levels])


def plot_kernels(
    earlier: Tensor,
    later: Tensor,
    joint: Tensor,
    *,
    ratio: float,
    names: tuple[str, str],
    pathway: tuple[int, int, int],
    axes: Sequence[Axes] | None = None,
) -> Plot[list[Axes]]:
    """Two kernels and their convolution, and below the moduli of their Fourier transforms (S002 Fig. 3a)."""
    figure, panels = _panels(axes, 2, 3, (7.2, 4.9))
    kernels = [kernel.numpy() for kernel in (earlier, later, joint)]
    titles = [f"g: {label(names[0], 24)}", f"h: {label(names[1], 24)}", "g ∗ h"]
    for ax, kernel, title in zip(panels[:3], kernels, titles, strict=True):
        limit = float(np.abs(kernel).max()) or 1.0
        ax.imshow(kernel, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
        ax.set_title(title, fontsize="medium")
    for ax, kernel, title in zip(panels[3:], kernels, ("|ĝ|", "|ĥ|", "|ĝ ∗ h|"), strict=True):
        side = max(_GRID, *kernel.shape)
        transform = np.fft.fftshift(np.abs(np.fft.fft2(kernel, (side, side))))
        ax.imshow(transform, cmap="viridis", vmin=0, extent=(-0.5, 0.5, 0.5, -0.5), interpolation="nearest")
        ax.set_title(title.replace("ĝ ∗ h", "FT of g ∗ h"), fontsize="medium")
    for i, ax in enumerate(panels):
        ax.set_xticks([-0.5, 0, 0.5] if i >= 3 else [])
        ax.set_yticks([-0.5, 0, 0.5] if i == 3 else [])
    if axes is None:
        figure.suptitle(f"channels {' → '.join(map(str, pathway))}: spectral dependency ratio {ratio:.2f}")
    return Plot(figure, panels)


def plot_removal(rows: Sequence[Mapping[str, Any]], *, axes: Sequence[Axes] | None = None) -> Plot[list[Axes]]:
    """Saturation and finest-scale energy of every removal, and of its control beside it."""
    figure, panels = _panels(axes, 1, 2, (8.6, 3.6))
    labels = {"saturation": "colour saturation", "fine": "energy of the finest scale"}
    at = np.arange(len(rows))
    for ax, what in zip(panels, ("saturation", "fine"), strict=True):
        style: dict[str, Any] = {"width": 0.38, "capsize": 3}
        ax.bar(
            at - 0.2, [row[what] for row in rows], yerr=[row[f"{what}_error"] for row in rows], color=PALETTE[0],
            label="removed (± standard error over images)", **style,
        )  # fmt: skip
        beside = [(i, row) for i, row in enumerate(rows) if f"{what}_control" in row]
        ax.bar(
            [i + 0.2 for i, _ in beside], [row[f"{what}_control"] for _, row in beside],
            yerr=[row[f"{what}_control_spread"] for _, row in beside], color="0.65",
            label="control: as many at random (± spread of draws)", **style,
        )  # fmt: skip
        ax.set_xticks(at, [label(row["removed"], 24) for row in rows], rotation=30, ha="right")
        ax.set_ylabel(labels[what])
    if axes is None:
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper center", ncols=2, frameon=False, fontsize="small")
    return Plot(figure, panels)


def _panels(
    axes: Sequence[Axes] | None, down: int, across: int, size: tuple[float, float]
) -> tuple[Figure, list[Axes]]:
    """The caller's axes, as many as needed, or new ones."""
    if axes is not None:
        given = list(axes)
        if len(given) != down * across:
            raise ProbeError(f"{len(given)} axes are given and {down * across} are drawn on; give as many")
        return cast("Figure", given[0].get_figure(root=True)), given
    from matplotlib.figure import Figure as NewFigure

    figure = NewFigure(figsize=size, layout="constrained")
    return figure, list(figure.subplots(down, across, squeeze=False).reshape(-1))
