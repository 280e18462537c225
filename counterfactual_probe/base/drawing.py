"""Figures: arrays in, ``(figure, axes)`` out, onto the caller's axes if given; never shown.

matplotlib is imported inside the functions, so that importing the library does not load it.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats: TypeAlias = npt.NDArray[np.floating[Any]]

# Okabe and Ito's palette: told apart by colour-blind readers too. Grey is for "no module".
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
NO_MODULE_COLOUR = "#999999"


def module_colour(module: int) -> str:
    return PALETTE[module % len(PALETTE)] if module >= 0 else NO_MODULE_COLOUR


def canvas(ax: Axes | None, width: float, height: float) -> tuple[Figure, Axes]:
    """The caller's axes with their figure, or new ones that belong to no window."""
    if ax is not None:
        return cast("Figure", ax.get_figure(root=True)), ax
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def png(figure: Figure, *, dpi: int = 100, photographs: bool = True) -> bytes:
    """The figure as PNG, without metadata: the same figure gives the same bytes.

    A figure without photographs needs few colours and, as a palette, a third of the size.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight", metadata={"Software": None})
    if photographs:
        return buffer.getvalue()
    from PIL import Image

    small = io.BytesIO()
    with Image.open(buffer) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(small, format="PNG", optimize=True)
    return small.getvalue()


def displayable(images: Floats, image_range: tuple[float, float]) -> Floats:
    """Images (…, C, H, W) of a range as (…, H, W, 3) in 0…1: grey repeated, the first three of more."""
    low, high = image_range
    scaled = np.clip((np.moveaxis(images.astype(np.float64), -3, -1) - low) / (high - low), 0, 1)
    if scaled.shape[-1] < 3:
        scaled = np.repeat(scaled.mean(-1, keepdims=True), 3, axis=-1)
    return scaled[..., :3]


def tile(cells: Floats, gap: int = 2, background: float = 1.0) -> Floats:
    """(rows, columns, H, W, 3) as one picture, with gaps."""
    rows, columns, height, width, colours = cells.shape
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, colours), background)
    for row in range(rows):
        for column in range(columns):
            top, left = row * (height + gap), column * (width + gap)
            sheet[top : top + height, left : left + width] = cells[row, column]
    return sheet


def _without_frame(ax: Axes) -> None:
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)


def plot_images(
    images: Floats,
    labels: Sequence[str],
    image_range: tuple[float, float] = (-1.0, 1.0),
    *,
    ax: Axes | None = None,
    columns: bool = False,
) -> tuple[Figure, Axes]:
    """A sheet of images (groups, n, C, H, W), one row per group (or column), named by its label."""
    cells = displayable(images, image_range)
    if columns:
        cells = cells.swapaxes(0, 1)
    down, across, height, width = cells.shape[:4]
    scale = 0.9 / max(height, width)
    figure, ax = canvas(ax, across * width * scale + 1.4, down * height * scale + 0.4)
    ax.imshow(tile(cells), interpolation="nearest")
    size = width if columns else height
    centres = [(size + 2) * i + size / 2 - 0.5 for i in range(len(labels))]
    if columns:
        ax.set_xticks(centres, labels)
        ax.set_yticks([])
        ax.xaxis.tick_top()
    else:
        ax.set_yticks(centres, labels)
        ax.set_xticks([])
    _without_frame(ax)
    return figure, ax


def plot_mosaic(
    maps: Floats,
    *,
    ax: Axes | None = None,
    modules: Sequence[int] | None = None,
    across: int | None = None,
    cell: float = 0.5,
) -> tuple[Figure, Axes]:
    """Maps (n, H, W) side by side, each scaled to its own largest value, framed by its module's colour."""
    from matplotlib import colormaps
    from matplotlib.colors import to_rgb

    n, height, width = maps.shape
    across = across or (32 if n > 256 else 16 if n > 16 else n)
    down = -(-n // across)
    largest = maps.max(axis=(1, 2), keepdims=True)
    colours = colormaps["viridis"](maps / np.where(largest > 0, largest, 1))[..., :3]
    frame = max(1, height // 14) if modules is not None else 0
    cells = np.ones((down * across, height + 2 * frame, width + 2 * frame, 3))
    for i in range(n):
        if modules is not None:
            cells[i] = to_rgb(module_colour(modules[i]))
        cells[i, frame : frame + height, frame : frame + width] = colours[i]
    sheet = tile(cells.reshape(down, across, *cells.shape[1:]), gap=max(1, height // 30))
    figure, ax = canvas(ax, across * cell, down * cell * height / width)
    ax.imshow(sheet, interpolation="nearest")
    ax.set_axis_off()
    return figure, ax
