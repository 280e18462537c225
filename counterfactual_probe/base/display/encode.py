"""Pictures as files: photographs as WebP, plots as SVG, all else as PNG; the same picture gives the same bytes."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .plot import png

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

_QUALITY = 88  # of photographs; differences are not seen
_SALT = "counterfactual-probe"  # of the ids in an SVG


def encoded(figure: Figure, *, photographs: bool = False, dpi: int = 100) -> tuple[bytes, str]:
    """The figure in the format that suits it, and the suffix of its file.

    >>> from matplotlib.figure import Figure
    >>> encoded(Figure())[1]
    '.svg'

    One that shows arrays is a picture of few colours, a PNG, unless these are ``photographs``; all others are lines.
    """
    if photographs:
        return _photograph(figure, dpi), ".webp"
    if any(ax.images for ax in figure.axes):
        return png(figure, dpi=dpi, photographs=False), ".png"
    return svg(figure), ".svg"


def webp(pixels: npt.NDArray[np.floating[Any]]) -> bytes:
    """Pixels (H, W, 3) in 0…1 as a photograph."""
    from PIL import Image

    return _as_webp(Image.fromarray(np.rint(pixels * 255).astype(np.uint8)))


def svg(figure: Figure) -> bytes:
    """The figure as lines, whose letters are lines too: it looks the same whatever fonts there are."""
    from matplotlib import rc_context

    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": _SALT, "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def _photograph(figure: Figure, dpi: int) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    quick = {"compress_level": 1}  # it is decoded again at once
    figure.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight", pil_kwargs=quick)
    with Image.open(buffer) as image:
        return _as_webp(image.convert("RGB"))


def _as_webp(image: Image) -> bytes:
    small = io.BytesIO()
    image.save(small, format="WEBP", quality=_QUALITY, method=4)
    return small.getvalue()
