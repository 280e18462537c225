"""Figures of modules along the calls of a layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...base.display.plot import Plot
from ...base.drawing import PALETTE, Floats, canvas, label, module_colour
from ..clustering import Labels
from ..plots import plot_templates

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BAND = (2.5, 97.5)  # percentiles of chance
_TICKS = 12
_CELL = 1.0  # inches, of a template


def plot_kept(
    calls: Labels,
    kept: Floats,
    chance: Floats,
    standard_error: Floats | None,
    *,
    reproducible: Floats | None = None,
    ax: Axes | None = None,
) -> Plot[Axes]:
    """Shares (calls − 1,) of channels that keep their module, drawn between two calls, with ± 2 standard errors.

    Around the mean of ``chance`` (calls − 1, permutations) there is its middle 95 %.
    """
    figure, ax = canvas(ax, 5.4, 3.4)
    between = (calls[1:] + calls[:-1]) / 2
    if reproducible is not None:
        ax.plot(
            calls, reproducible, "--", marker="s", ms=3, color=PALETTE[2], label="other latents,\nthe same call"
        )  # fmt: skip
    bars = None if standard_error is None else 2 * standard_error
    ax.errorbar(between, kept, bars, marker="o", color=PALETTE[0], capsize=3, label="from call to call")
    low, high = np.percentile(chance, _BAND, axis=1)
    middle = chance.mean(1)
    ax.errorbar(between, middle, [middle - low, high - middle], color="0.5", marker="_", capsize=3, label="chance")
    ax.set_xlabel("call")
    ax.set_ylabel("channels that keep\ntheir module")
    ax.set_xticks(_ticks(calls))
    ax.set_ylim(0, 1.03)
    # Beside the axes: curves may be anywhere inside.
    ax.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    return Plot(figure, ax)


def plot_courses(calls: Labels, labels: Labels, names: Sequence[str], *, ax: Axes | None = None) -> Plot[Axes]:
    """Labels (calls, channels) as colours: a row for each call, a column for each channel, sorted by its course."""
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Patch

    order = np.lexsort(labels[::-1])
    figure, ax = canvas(ax, 7.0, 0.6 + 0.28 * len(calls))
    colours = np.array([[to_rgb(module_colour(int(k))) for k in row] for row in labels[:, order]])
    ax.imshow(colours, aspect="auto", interpolation="nearest")
    ax.set_yticks(range(len(calls)), [str(call) for call in calls.tolist()])
    ax.set_ylabel("call")
    ax.set_xlabel("channels, by their modules at the calls")
    shown = [Patch(color=module_colour(k), label=label(name)) for k, name in enumerate(names)]
    if (labels < 0).any():
        shown.append(Patch(color=module_colour(-1), label="no module"))
    ax.legend(handles=shown, frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    return Plot(figure, ax)


def plot_templates_by_call(
    templates: Floats, calls: Labels, names: Sequence[str], *, ax: Axes | None = None
) -> Plot[Axes]:
    """Templates (calls, K, H, W), each on its own scale: a row for each module, a column for each call."""
    across, down, height, width = templates.shape
    figure, ax = canvas(ax, _CELL * across + 1.0, _CELL * down * height / width + 0.4)
    plot_templates(templates.swapaxes(0, 1), [f"call {call}" for call in calls.tolist()], ax=ax)
    step = height + max(2, width // 16)
    ax.set_yticks([step * row + height / 2 - 0.5 for row in range(down)], [label(name) for name in names])
    return Plot(figure, ax)


def _ticks(calls: Labels) -> list[int]:
    """The calls that are named below the axis: all of them, or evenly chosen ones."""
    chosen: list[int] = calls[:: -(-len(calls) // _TICKS)].tolist()
    return chosen
