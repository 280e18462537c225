"""Figures of the invariance test (S000 Fig. 3), for one layer or several side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ..base.display.plot import Plot
from ..base.drawing import PALETTE, Floats, canvas, displayable, label, plot_images, tile, without_frame

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ByLayer: TypeAlias = Sequence[tuple[str, Floats]]


def plot_transformed(
    base: Floats, by_layer: ByLayer, transformed: Floats, image_range: tuple[float, float], *, ax: Axes | None = None
) -> Plot[Axes]:
    """Images (n, C, H, W), a row for each layer that was transformed, and the transformed images (S000 Fig. 3a)."""
    rows = [base, *(images for _, images in by_layer), transformed]
    labels = ["image", *(f"{layer}\ntransformed" for layer, _ in by_layer), "image\ntransformed"]
    return plot_images(np.stack(rows), labels, image_range, ax=ax)


def plot_mse_per_scale(
    values: ByLayer,
    errors: Sequence[Floats | None],
    pixels: Sequence[int],
    *,
    relative: bool = False,
    ax: Axes | None = None,
) -> Plot[Axes]:
    """MSE (scales,) of every layer with ± one standard error, bars side by side (S000 Fig. 3c).

    ``pixels`` is the size of each scale, from coarse to fine. With ``relative`` the values are over those of a layer
    that ignores the transformation, which is 1.
    """
    figure, ax = canvas(ax, 6.4, 3.2)
    width = 0.8 / len(values)
    for i, ((layer, heights), error) in enumerate(zip(values, errors, strict=True)):
        at = np.arange(len(pixels)) + (i - (len(values) - 1) / 2) * width
        ax.bar(
            at, heights, width, yerr=error, label=label(layer), color=PALETTE[i % len(PALETTE)], error_kw={"lw": 0.8}
        )
    if relative:
        ax.axhline(1, color="black", lw=0.8, ls="--")
    names = [f"{size} px" for size in pixels]
    ax.set_xticks(range(len(names)), [f"{names[0]}\nmeans", *names[1:]])
    ax.set_xlabel("scale, from coarse to fine")
    ax.set_ylabel("MSE / MSE of doing nothing" if relative else "MSE")
    # Beside the axes: bars may be anywhere inside.
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1), title="layer")
    return Plot(figure, ax)


def plot_components(
    target: Floats,
    by_layer: ByLayer,
    pixels: Sequence[int],
    image_range: tuple[float, float],
    *,
    ax: Axes | None = None,
) -> Plot[Axes]:
    """One image as components (scales, C, H, W): of the transformed image, and of each transformed layer beside it.

    Details stand on grey; every scale has a contrast of its own, the same for all rows (S000 Fig. 3c).
    """
    rows, labels = [target], ["image\ntransformed"]
    for layer, components in by_layer:
        rows += [components, components - target]
        labels += [f"{layer}\ntransformed", "difference"]
    cells = _contrasted(np.stack(rows), image_range)
    scales = len(pixels)
    figure, ax = canvas(ax, 0.9 * scales + 1.6, 0.9 * len(rows) * cells.shape[2] / cells.shape[3] + 0.4)
    ax.imshow(tile(cells), interpolation="nearest")
    height, width = cells.shape[2] + 2, cells.shape[3] + 2
    names = ["means", *(f"{size} px" for size in pixels[1:])]
    ax.set_xticks([width * i + width / 2 for i in range(scales)], names)
    ax.set_yticks([height * i + height / 2 for i in range(len(rows))], [label(text) for text in labels])
    ax.xaxis.tick_top()
    without_frame(ax)
    return Plot(figure, ax)


def _contrasted(rows: Floats, image_range: tuple[float, float]) -> Floats:
    """Components (rows, scales, C, H, W) as colours: the first row's coarsest scale in the image's range, everything
    else around grey."""
    low, high = image_range
    shown = np.empty((*rows.shape[:2], *rows.shape[3:], 3))
    for scale in range(rows.shape[1]):
        largest = np.percentile(np.abs(rows[:, scale]), 99.5) if scale else (high - low) / 2
        largest = largest or 1.0
        shown[:, scale] = displayable(rows[:, scale], (-largest, largest))
    images = [0, *range(1, len(rows), 2)]
    shown[images, 0] = displayable(rows[images, 0], (low, high))
    return shown
