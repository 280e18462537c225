"""Transformations of maps and images: the same one for a layer of any size and for the image."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..base.errors import ProbeError

Axis = Literal["horizontal", "vertical"]


@dataclass(frozen=True)
class Transformation:
    """Resamples each pixel from another place, bilinearly (align_corners=False), with edges repeated.

    >>> import torch
    >>> stretch(2)(torch.arange(4.0).expand(1, 4, 4))[0, 0]
    tensor([0.7500, 1.2500, 1.7500, 2.2500])

    Made by :func:`stretch`, :func:`shift`, :func:`flip` and :func:`rotation`. Any function from maps (channels, H, W)
    to maps of the same shape can stand in its place.

    Attributes:
        name: what results call it.
        matrix: ((xx, xy), (yx, yy)), from a pixel's place, relative to the centre, to the place it is read from.
        offset: (x, y), added to that place, in widths and heights, so that it is the same for a layer and its image.
    """

    name: str
    matrix: tuple[tuple[float, float], tuple[float, float]]
    offset: tuple[float, float] = (0.0, 0.0)

    def __call__(self, maps: Tensor) -> Tensor:
        """The maps (…, H, W), transformed."""
        rows, columns = self._places(maps.shape[-2], maps.shape[-1])
        # Half precision has too few digits for the weights.
        values = maps if maps.dtype in (torch.float32, torch.float64) else maps.float()
        above, below, down = _neighbours(rows, values)
        left, right, along = _neighbours(columns, values)
        upper = values[..., above, left] * (1 - along) + values[..., above, right] * along
        lower = values[..., below, left] * (1 - along) + values[..., below, right] * along
        return (upper * (1 - down) + lower * down).to(maps.dtype)

    def _places(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Row and column that each pixel is read from, both (H, W) and inside the maps."""
        y = torch.arange(height, dtype=torch.float64)[:, None] + 0.5 - height / 2
        x = torch.arange(width, dtype=torch.float64)[None] + 0.5 - width / 2
        (xx, xy), (yx, yy) = self.matrix
        columns = xx * x + xy * y + self.offset[0] * width + width / 2 - 0.5
        rows = yx * x + yy * y + self.offset[1] * height + height / 2 - 0.5
        return _snapped(rows).clamp(0, height - 1), _snapped(columns).clamp(0, width - 1)


def _snapped(places: Tensor) -> Tensor:
    """Places within rounding of a whole number become whole, so that they are read exactly."""
    whole = places.round()
    return torch.where((places - whole).abs() < 1e-9, whole, places)


def _neighbours(places: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The whole numbers below and above each place, and the weight of the one above, on the values' device."""
    first, second = places.floor(), places.ceil()
    return first.long().to(values.device), second.long().to(values.device), (places - first).to(values)


def stretch(factor: float = 1.5, axis: Axis = "horizontal") -> Transformation:
    """Stretched about the centre and cropped on both sides to the original size (S000 §5.1; conventions 22).

    >>> stretch()
    Transformation(name='stretch 1.5', matrix=((0.6666666666666666, 0.0), (0.0, 1.0)), offset=(0.0, 0.0))
    """
    if not 0 < factor < math.inf:
        raise ProbeError(f"the factor of a stretch is {factor}; give a positive number, such as 1.5")
    horizontal = _is_horizontal(axis)
    x, y = (1 / factor, 1.0) if horizontal else (1.0, 1 / factor)
    return Transformation(f"{'' if horizontal else 'vertical '}stretch {factor:g}", ((x, 0.0), (0.0, y)))


def shift(horizontal: float = 0.25, vertical: float = 0.0) -> Transformation:
    """Moved right and down by shares of the width and height: 0.25 is 16 pixels of 64, and 2 of a layer's 8."""
    if not (abs(horizontal) < 1 and abs(vertical) < 1):
        raise ProbeError(f"a shift by {horizontal} and {vertical} of the size leaves no image; give shares below 1")
    return Transformation(f"shift {horizontal:g}, {vertical:g}", ((1.0, 0.0), (0.0, 1.0)), (-horizontal, -vertical))


def flip(axis: Axis = "horizontal") -> Transformation:
    """Mirrored left to right, or top to bottom."""
    x, y = (-1.0, 1.0) if _is_horizontal(axis) else (1.0, -1.0)
    return Transformation(f"{axis} flip", ((x, 0.0), (0.0, y)))


def rotation(degrees: float = 90.0) -> Transformation:
    """Turned anticlockwise about the centre; for square maps and 90°, exactly ``torch.rot90``."""
    if not math.isfinite(degrees):
        raise ProbeError(f"a rotation by {degrees} degrees has no meaning; give a finite number")
    cosine, sine = (round(function(math.radians(degrees)), 12) for function in (math.cos, math.sin))
    return Transformation(f"rotation {degrees:g}°", ((cosine, -sine), (sine, cosine)))


def parse(text: str) -> Transformation:
    """A transformation as the command line takes it: a name, and after a colon its numbers.

    >>> parse("stretch:1.5") == stretch(1.5), parse("shift:0.25,0.1") == shift(0.25, 0.1), parse("flip") == flip()
    (True, True, True)
    """
    name, _, given = text.partition(":")
    if name == "flip":
        return flip(given) if given else flip()  # type: ignore[arg-type]  # it says what is wrong
    try:
        numbers = [float(number) for number in given.split(",")] if given else []
        by_name: dict[str, Callable[..., Transformation]] = {"stretch": stretch, "shift": shift, "rotation": rotation}
        return by_name[name](*numbers)
    except (KeyError, TypeError, ValueError):
        raise ProbeError(
            f"the transformation is {text!r}; give stretch, shift, flip or rotation, with numbers where the defaults "
            "do not suit, such as stretch:1.5, shift:0.25,0, rotation:15"
        ) from None


def _is_horizontal(axis: Axis) -> bool:
    if axis not in ("horizontal", "vertical"):
        raise ProbeError(f"the axis is {axis!r}; give 'horizontal' or 'vertical'")
    return axis == "horizontal"
