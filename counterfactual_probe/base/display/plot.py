"""What every ``plot`` returns: a figure and its axes, which a notebook shows once."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from ..errors import ProbeError, first_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AxesT_co = TypeVar("AxesT_co", covariant=True)
_DPI = 100


class Plot(NamedTuple, Generic[AxesT_co]):
    """A figure and its axes.

    >>> figure, ax = maps.plot()  # doctest: +SKIP
    >>> maps.plot().savefig("maps.png")  # doctest: +SKIP
    >>> maps.plot()  # the last line of a notebook's cell: the picture is shown  # doctest: +SKIP
    """

    figure: Figure
    axes: AxesT_co

    def savefig(self, path: str | os.PathLike[str], **options: Any) -> Path:
        """Write the figure, as matplotlib's ``savefig`` does, without cutting off labels; atomically, as all files."""
        from ..files import as_path, write_bytes

        target, buffer = as_path(path), io.BytesIO()
        kind = str(options.pop("format", None) or target.suffix[1:] or "png").lower()
        if not target.suffix:
            target = target.with_name(f"{target.name}.{kind}")
        try:
            self.figure.savefig(buffer, format=kind, **{"bbox_inches": "tight"} | options)
        except ValueError as error:  # of formats that matplotlib does not know
            raise ProbeError(
                f"the figure cannot be written as {kind!r} ({first_line(error)}); give a name that ends in .png, .pdf "
                "or .svg"
            ) from error
        return write_bytes(target, buffer.getvalue())

    def __repr__(self) -> str:
        width, height = self.figure.get_size_inches()
        return f"Plot({width:g}×{height:g} inches; unpack it as figure, axes = …, or write it with .savefig(path))"

    def _repr_png_(self) -> bytes | None:
        """The picture for a notebook; None where the notebook itself shows the figure because pyplot made it."""
        return None if _shown_by_pyplot(self.figure) else png(self.figure)


def png(figure: Figure, *, dpi: int = _DPI, photographs: bool = True) -> bytes:
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


def _shown_by_pyplot(figure: Figure) -> bool:
    """Whether pyplot holds the figure open: the axes given to ``plot(ax)`` were its."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    return pyplot is not None and pyplot.fignum_exists(getattr(figure, "number", -1))
