"""Figures of the invariance test (S000 Fig. 3), for one layer or several side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..base.drawing import PALETTE, Floats, canvas, displayable, plot_images, tile
from ..base.errors import ProbeError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_transformed(results: Sequence[Any], *, ax: Axes | None = None, most: int = 8) -> tuple[Figure, Axes]:
    """Images, a row for each layer that was transformed, and the transformed images (S000 Fig. 3a)."""
    first = _of_the_same_images(results)
    rows = [first.base, *(result.images for result in results), first.transformed]
    labels = ["image", *(f"{result.layer}\ntransformed" for result in results), "image\ntransformed"]
    low, high = first.provenance["image_range"]
    return plot_images(np.stack([row[:most].numpy() for row in rows]), labels, (low, high), ax=ax)


def plot_mse_per_scale(
    results: Sequence[Any], *, ax: Axes | None = None, relative: bool = False
) -> tuple[Figure, Axes]:
    """MSE of every scale with ± one standard error, bars side by side for the layers (S000 Fig. 3c).

    ``relative`` to that of a layer that takes no notice of the transformation, which is 1.
    """
    first = _of_the_same_images(results)
    scales = len(first.mse_per_scale)
    figure, ax = canvas(ax, 6.4, 3.2)
    width = 0.8 / len(results)
    for i, result in enumerate(results):
        values, errors = (
            (result.relative_mse_per_scale, result.relative_standard_error_per_scale)
            if relative
            else (result.mse_per_scale, result.standard_error_per_scale)
        )
        at = np.arange(scales) + (i - (len(results) - 1) / 2) * width
        ax.bar(
            at, values.numpy(), width, yerr=errors.numpy() if len(result) > 1 else None, label=result.layer,
            color=PALETTE[i % len(PALETTE)], error_kw={"lw": 0.8},
        )  # fmt: skip
    if relative:
        ax.axhline(1, color="black", lw=0.8, ls="--")
    names = [f"{pixels} px" for pixels in first.scales.pixels]
    ax.set_xticks(range(scales), [f"{names[0]}\nmeans", *names[1:]])
    ax.set_xlabel("scale, from coarse to fine")
    ax.set_ylabel("MSE / MSE of doing nothing" if relative else "MSE")
    # Beside the axes: bars may be anywhere inside.
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1), title="layer")
    return figure, ax


def plot_components(results: Sequence[Any], *, ax: Axes | None = None, image: int = 0) -> tuple[Figure, Axes]:
    """One image apart into scales: of each transformed layer, and what is between it and the transformed image.

    Details stand on grey; every scale has a contrast of its own, the same for all rows (S000 Fig. 3c).
    """
    first = _of_the_same_images(results)
    if not -len(first.images) <= image < len(first.images):
        raise ProbeError(f"image {image} asked of a result that keeps {len(first.images)}; give one from 0 on")
    scales = first.scales
    target = first.transformed[image].double().numpy()
    rows, labels = [scales.components(target)], ["image\ntransformed"]
    for result in results:
        own = result.images[image].double().numpy()
        rows += [scales.components(own), scales.components(own - target)]
        labels += [f"{result.layer}\ntransformed", "difference"]
    cells = _contrasted(np.stack(rows), first.provenance["image_range"])
    figure, ax = canvas(ax, 0.9 * len(scales) + 1.6, 0.9 * len(rows) * cells.shape[2] / cells.shape[3] + 0.4)
    ax.imshow(tile(cells), interpolation="nearest")
    height, width = cells.shape[2] + 2, cells.shape[3] + 2
    names = [f"{pixels} px" for pixels in scales.pixels]
    names[0] = "means"
    ax.set_xticks([width * i + width / 2 for i in range(len(scales))], names)
    ax.set_yticks([height * i + height / 2 for i in range(len(rows))], labels)
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    return figure, ax


def _contrasted(rows: Floats, image_range: Sequence[float]) -> Floats:
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


def _of_the_same_images(results: Sequence[Any]) -> Any:
    if not results:
        raise ProbeError("no results are given to the plot; give at least one")
    first = results[0]
    for other in results[1:]:
        for name in ("generator", "transformation", "wavelet", "levels", "seed", "latents_sha256", "n_images"):
            if other.provenance[name] != first.provenance[name]:
                raise ProbeError(
                    f"results of layers {first.layer!r} and {other.layer!r} differ in their {name} "
                    f"({first.provenance[name]!r} and {other.provenance[name]!r}); plot results of the same images"
                )
    return first
