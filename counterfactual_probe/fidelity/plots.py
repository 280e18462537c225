"""Figures of a fidelity test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..base.drawing import PALETTE, canvas, plot_images

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_fidelity(result: Any, *, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """Distance of every group from real images, if there are any, and from generated ones, ± one standard error."""
    table, error = result.table, result.standard_error
    figure, ax = canvas(ax, 3.0 + 1.0 * len(result.groups), 3.4)
    references = [0, 1] if result.has_real else [0]
    width = 0.8 / len(references)
    for i, reference in enumerate(references):
        shown = [group for group in range(len(result.groups)) if group != reference]
        errors = error[shown, reference] if len(result.replicates) > 1 else None
        at = np.array(shown) + (i - (len(references) - 1) / 2) * width
        ax.bar(
            at, table[shown, reference], width, yerr=errors, color=PALETTE[i], error_kw={"lw": 0.8},
            label=f"from {result.groups[reference]}",
        )  # fmt: skip
    first = 0 if result.has_real else 1
    ax.set_xticks(range(first, len(result.groups)), [name.replace(" ", "\n", 1) for name in result.groups[first:]])
    unit = f" /\nthat of generated from {result.groups[0]}" if result.has_real else ""
    ax.set_ylabel(f"Fréchet distance{unit}")
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure, ax


def plot_examples(result: Any, *, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """Images of every group, the realism of each among the first group's written into it; red where outside of them."""
    low, high = result.provenance["image_range"]
    figure, ax = plot_images(result.examples.numpy(), list(result.groups), (low, high), ax=ax)
    height, width = result.examples.shape[-2] + 2, result.examples.shape[-1] + 2
    for group in range(1, len(result.groups)):
        for place in range(result.examples.shape[1]):
            is_inside = bool(result.inside[group, place])
            ax.text(
                place * width + 1, group * height + 1, f"{result.realism[group, place]:.2f}", va="top", fontsize=6,
                color="white" if is_inside else "#ff5050",
                bbox={"facecolor": "black", "alpha": 0.5, "pad": 0.5, "lw": 0},
            )  # fmt: skip
    return figure, ax
