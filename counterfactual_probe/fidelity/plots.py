"""Figures of a fidelity test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..base.display.plot import Plot
from ..base.drawing import PALETTE, Floats, canvas, label, plot_images

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_fidelity(
    table: Floats, errors: Floats | None, groups: Sequence[str], *, has_real: bool, ax: Axes | None = None
) -> Plot[Axes]:
    """Distances (groups, groups) of every group from real images, the first if there are any, and from generated ones.

    ``errors`` are drawn as ± one standard error.
    """
    figure, ax = canvas(ax, 3.0 + 1.0 * len(groups), 3.4)
    names = [label(name, 24) for name in groups]
    references = [0, 1] if has_real else [0]
    width = 0.8 / len(references)
    for i, reference in enumerate(references):
        shown = [group for group in range(len(groups)) if group != reference]
        at = np.array(shown) + (i - (len(references) - 1) / 2) * width
        ax.bar(
            at, table[shown, reference], width, yerr=None if errors is None else errors[shown, reference],
            color=PALETTE[i], error_kw={"lw": 0.8}, label=f"from {names[reference]}",
        )  # fmt: skip
    first = 0 if has_real else 1
    ax.set_xticks(range(first, len(groups)), [name.replace(" ", "\n", 1) for name in names[first:]])
    unit = f" /\nthat of generated from {names[0]}" if has_real else ""
    ax.set_ylabel(f"Fréchet distance{unit}")
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return Plot(figure, ax)


def plot_examples(
    examples: Floats,
    groups: Sequence[str],
    realism: Floats,
    inside: npt.NDArray[np.bool_],
    image_range: tuple[float, float],
    *,
    ax: Axes | None = None,
) -> Plot[Axes]:
    """Images (groups, kept, C, H, W), the realism of each but the first group's written into it; red where outside.

    ``realism`` and ``inside`` are (groups, n), the images kept first.
    """
    figure, ax = plot_images(examples, groups, image_range, ax=ax)
    height, width = examples.shape[-2] + 2, examples.shape[-1] + 2
    for group in range(1, len(groups)):
        for place in range(examples.shape[1]):
            ax.text(
                place * width + 1, group * height + 1, f"{realism[group, place]:.2f}", va="top", fontsize=6,
                color="white" if inside[group, place] else "#ff5050",
                bbox={"facecolor": "black", "alpha": 0.5, "pad": 0.5, "lw": 0},
            )  # fmt: skip
    return Plot(figure, ax)
