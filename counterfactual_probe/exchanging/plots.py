"""Figures of what exchanging modules changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..base.display.plot import Plot
from ..base.drawing import NO_MODULE_COLOUR, PALETTE, Floats, canvas, label, module_colour, name_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DARK = 0.6  # of interaction: letters above are white
_OWN = 2  # groups of own images


def plot_exchange(
    cause: tuple[Floats, Floats],
    isolation: tuple[Floats, Floats],
    random: Mapping[str, tuple[Floats, Floats]],
    names: Sequence[str],
    *,
    ax: Axes | None = None,
) -> Plot[Axes]:
    """Cause (K,) against isolation, each with ± one standard error, among those (controls, K) of random sets."""
    figure, ax = canvas(ax, 6.4, 4.0)
    ax.plot([0, 1], [1, 0], ":", color="0.5", lw=1, zorder=0, label="no separation")
    shades = dict(zip(random, ("x", "."), strict=False))
    for k, name in enumerate(names):
        for kind, (one, other) in random.items():
            ax.plot(other[:, k], one[:, k], shades[kind], ms=4, alpha=0.35, color=module_colour(k), zorder=1)
        ax.errorbar(
            isolation[0][k], cause[0][k], cause[1][k], isolation[1][k], marker="D", ms=8, mec="black", ls="",
            color=module_colour(k), label=label(name), zorder=2,
        )  # fmt: skip
    for kind, marker in shades.items():
        ax.plot([], [], marker, color=NO_MODULE_COLOUR, label=kind)
    ax.plot(1, 1, "*", ms=14, color="0.6", label="a part of its own", zorder=0, clip_on=False)
    ax.set_xlabel("isolation: 1, the base outside of the region")
    ax.set_ylabel("cause: 1, the source inside of the region")
    ax.set_xlim(*_limits(isolation[0], [pair[1] for pair in random.values()]))
    ax.set_ylim(*_limits(cause[0], [pair[0] for pair in random.values()]))
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return Plot(figure, ax)


def _limits(values: Floats, others: Sequence[Floats]) -> tuple[float, float]:
    """From 0, or below if any value is, to 1."""
    together = np.concatenate([np.ravel(values), *map(np.ravel, others)])
    finite = together[np.isfinite(together)]
    return min(-0.02, 1.1 * float(finite.min(initial=0.0))), max(1.04, 1.05 * float(finite.max(initial=1.0)))


def plot_interaction(interaction: Floats, names: Sequence[str], *, ax: Axes | None = None) -> Plot[Axes]:
    """Interaction (K, K): rows are what depends on the columns."""
    k = len(names)
    figure, ax = canvas(ax, 3.4 + 0.9 * k, 2.0 + 0.6 * k)
    drawn = ax.imshow(interaction, vmin=0, vmax=1, cmap="Blues")
    for row in range(k):
        for column in range(k):
            if np.isfinite(value := interaction[row, column]):
                ax.text(column, row, f"{value:.2f}", ha="center", va="center", color="w" if value > _DARK else "k")
    name_ticks(ax, names)
    ax.set_yticks(range(k), [label(name, 24) for name in names])
    ax.set_xlabel("exchanged as well")
    ax.set_ylabel("exchanged")
    figure.colorbar(drawn, ax=ax, label="interaction")
    return Plot(figure, ax)


def plot_faithfulness(faithfulness: Floats, groups: Sequence[str], *, ax: Axes | None = None) -> Plot[Axes]:
    """Faithfulness (groups, images), each image a dot, and the means as bars; of own images, the first two, in grey."""
    figure, ax = canvas(ax, 2.2 + 0.9 * len(groups), 3.6)
    for place, values in enumerate(faithfulness):
        colour = NO_MODULE_COLOUR if place < _OWN else PALETTE[0]
        ax.plot(np.linspace(-0.15, 0.15, len(values)) + place, values, "o", ms=3, color=colour, alpha=0.7)
        ax.plot([place - 0.3, place + 0.3], [values.mean()] * 2, color=colour, lw=2)
    name_ticks(ax, groups)
    ax.set_ylim(-0.03, 1.03)
    ax.set_ylabel("faithfulness")
    return Plot(figure, ax)
