"""Figures: arrays in, ``(figure, axes)`` out, onto the caller's axes if given; never shown.

matplotlib is imported inside the functions, so that importing the library does not load it. Every name from outside
(of a layer, a class, a generator) goes through :func:`label` once, in the function that draws it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from .display.flat import as_pictures
from .display.plot import Plot
from .display.text import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats: TypeAlias = npt.NDArray[np.floating[Any]]

# Okabe and Ito's palette: told apart by colour-blind readers too. Grey is for "no module".
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
PALETTE_NAMES = ("blue", "orange", "green", "pink", "light blue", "red", "yellow", "black")
NO_MODULE_COLOUR = "#999999"

_LONGEST, _LONGEST_TICK, _LINES = 40, 24, 4  # of a label
_WIDTH_OF_A_LETTER = 0.085  # inches, of a label of the usual size
_PER_LETTER = 0.01  # inches for a point of its size, above a map


def module_colour(module: int) -> str:
    return PALETTE[module % len(PALETTE)] if module >= 0 else NO_MODULE_COLOUR


def module_colour_name(module: int) -> str:
    return PALETTE_NAMES[module % len(PALETTE)] if module >= 0 else "grey"


def canvas(ax: Axes | None, width: float, height: float) -> tuple[Figure, Axes]:
    """The caller's axes with their figure, or new ones that belong to no window."""
    if ax is not None:
        return cast("Figure", ax.get_figure(root=True)), ax
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def label(text: str, most: int = _LONGEST) -> str:
    """Text from outside, to be drawn letter by letter.

    >>> print(label("$x_1$ and $y$"))
    \\$x_1\\$ and \\$y\\$

    A ``$`` starts no formula, a leading ``_`` does not hide an entry of a legend, lines of more letters than ``most``
    are shortened in the middle, and no more than four lines are kept.
    """
    lines = [one_line(line, most) for line in str(text).splitlines()[:_LINES]]
    plain = "\n".join(lines).replace("$", r"\$")
    # matplotlib leaves entries that start with "_" out of legends; a space of no width stands before it.
    return f"\u200b{plain}" if plain.startswith("_") else plain


def _inches(names: Sequence[str]) -> float:
    """About how wide labels of the usual size are."""
    return _WIDTH_OF_A_LETTER * max((len(line) for name in names for line in name.splitlines()), default=0)


def name_ticks(ax: Axes, names: Sequence[str]) -> None:
    """Names from outside along the x axis, at 0, 1, …; long ones are written at a slant."""
    shown = [label(name, _LONGEST_TICK) for name in names]
    ax.set_xticks(range(len(shown)), shown)
    if _inches(shown) > 1:
        ax.tick_params("x", labelrotation=30)
        for text in ax.get_xticklabels():
            text.set_horizontalalignment("right")


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


def without_frame(ax: Axes) -> None:
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
) -> Plot[Axes]:
    """A sheet of images (groups, n, C, H, W), one row per group (or column), named by its label.

    Sound and volumes, (groups, n, C, …), are shown as strips and slices.
    """
    cells = displayable(as_pictures(images, images.ndim - 3), image_range)
    if columns:
        cells = cells.swapaxes(0, 1)
    down, across, height, width = cells.shape[:4]
    scale = 0.9 / max(height, width)
    names = [label(text) for text in labels]
    room = max(1.4, _inches(names))
    figure, ax = canvas(ax, across * width * scale + room, down * height * scale + (room if columns else 0.4))
    ax.imshow(tile(cells), interpolation="nearest")
    size = width if columns else height
    centres = [(size + 2) * i + size / 2 - 0.5 for i in range(len(labels))]
    if columns:
        ax.set_yticks([])
        ax.xaxis.tick_top()
        ax.set_xticks(centres, names)
        if _inches(names) > width * scale:
            ax.tick_params("x", labelrotation=30)
    else:
        ax.set_yticks(centres, names)
        ax.set_xticks([])
    without_frame(ax)
    return Plot(figure, ax)


def plot_mosaic(
    maps: Floats,
    *,
    ax: Axes | None = None,
    modules: Sequence[int] | None = None,
    labels: Sequence[str] | None = None,
    across: int | None = None,
    cell: float = 0.5,
) -> Plot[Axes]:
    """Maps (n, H, W) side by side, each scaled to its own largest value, framed by its module's colour; those of other
    dimensions as strips and slices.

    ``labels``, such as the numbers of channels, stand above the maps.
    """
    maps = as_pictures(maps, maps.ndim - 1)
    n, height = maps.shape[:2]
    names = [label(text) for text in labels or ()]
    size = min(8.0, 10 * cell)  # of the labels, in points
    cell = min(2.0, max(cell, _PER_LETTER * size * max(map(len, names), default=0)))
    across = across or (32 if n > 256 else 16 if n > 16 else n)
    across = max(1, min(across, int(16 / cell))) if names else across
    room = -(-height // 4) if names else 0  # for a line of text
    cells = _framed(maps, modules, room)
    down = -(-n // across)
    grid = np.ones((down * across, *cells.shape[1:]))
    grid[:n] = cells
    gap = max(1, height // 30)
    sheet = tile(grid.reshape(down, across, *cells.shape[1:]), gap=gap)
    figure, ax = canvas(ax, across * cell, across * cell * sheet.shape[0] / sheet.shape[1])
    ax.imshow(sheet, interpolation="nearest")
    for i, name in enumerate(names):
        row, column = divmod(i, across)
        at = column * (cells.shape[2] + gap), row * (cells.shape[1] + gap) + 0.8 * room
        ax.text(*at, name, fontsize=size, va="bottom")
    ax.set_axis_off()
    return Plot(figure, ax)


def _framed(maps: Floats, modules: Sequence[int] | None, room: int) -> Floats:
    """Maps as colours (n, …, …, 3), with a frame of the module's and white room above."""
    from matplotlib import colormaps
    from matplotlib.colors import to_rgb

    n, height, width = maps.shape
    largest = maps.max(axis=(1, 2), keepdims=True)
    frame = max(1, height // 14) if modules is not None else 0
    cells = np.ones((n, room + height + 2 * frame, width + 2 * frame, 3))
    if modules is not None:
        cells[:, room:] = np.array([to_rgb(module_colour(module)) for module in modules])[:, None, None]
    colours = colormaps["viridis"](maps / np.where(largest > 0, largest, 1))[..., :3]
    cells[:, room + frame : room + frame + height, frame : frame + width] = colours
    return cells
