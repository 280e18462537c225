"""Named parts of the images of a generator: masks that templates are compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..base.errors import ProbeError, brief

Mask: TypeAlias = npt.NDArray[np.bool_]
Floats: TypeAlias = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Regions:
    """Named parts of a generator's images, and optionally what was seen in its modules before.

    >>> import numpy as np
    >>> sky = np.zeros((64, 64), bool)
    >>> sky[:24] = True
    >>> Regions({"sky": sky}).size
    (64, 64)

    Attributes:
        masks: name -> (H, W) mask: true inside, or from 0 to 1 where a pixel is in the part only in some images.
        layer, expected: a layer, and the names of the parts that its templates showed in an earlier
            study of this generator, on other latents.
        note: how the masks were made, and what to keep in mind when templates are compared with them.
    """

    masks: Mapping[str, Mask | Floats]
    layer: str | None = None
    expected: tuple[str, ...] = ()
    note: str = ""

    @property
    def size(self) -> tuple[int, ...]:
        """(height, width) of the masks."""
        return next(iter(self.masks.values())).shape

    def resized(self, height: int, width: int) -> Regions:
        """The same parts for maps that are averaged down to this size, which divides the masks'."""
        if self.size == (height, width):
            return self
        down, across = self.size[0] // height, self.size[1] // width

        def smaller(mask: Mask | Floats) -> Floats:
            return np.asarray(mask.astype(np.float64).reshape(height, down, width, across).mean((1, 3)))

        return replace(self, masks={name: smaller(mask) for name, mask in self.masks.items()})


def given_regions(masks: Mapping[str, Any], size: Sequence[int]) -> Regions:
    """Regions from masks of the user's, by name; a ProbeError for what is no mask of the images' (height, width)."""
    checked = {}
    for name, mask in masks.items():
        try:
            values = np.asarray(mask, np.float64)
        except (TypeError, ValueError):
            raise ProbeError(f"region {name!r} is {brief(mask)}; give a mask (height, width)") from None
        if values.shape != tuple(size):
            raise ProbeError(f"region {name!r} has shape {values.shape} and the images are {tuple(size)}; give that")
        if not ((values >= 0) & (values <= 1)).all():  # a NaN is neither
            raise ProbeError(f"region {name!r} holds values beyond 0 to 1; give a mask")
        checked[str(name)] = values
    if not checked:
        raise ProbeError("regions is empty; give at least one mask, or None")
    return Regions(checked, note="The parts of the image that templates are compared with were given.")


def generic_regions(height: int, width: int) -> Regions:
    """Parts that any image has: centre, border, edge and the four sides."""
    y, x = grid(height, width)
    return Regions(
        {
            "centre": (abs(y) < 0.5) & (abs(x) < 0.5),
            **border_regions(height, width),
            "top": y < -0.33,
            "bottom": y > 0.33,
            "left": x < -0.33,
            "right": x > 0.33,
        }
    )


def border_regions(height: int, width: int) -> dict[str, Mask]:
    """The border of an image, and its edge alone: where padding acts, whatever the image shows."""
    y, x = grid(height, width)
    beyond = np.maximum(abs(y), abs(x))
    return {"border": beyond > 0.75, "image edge": beyond > 0.9}


def grid(height: int, width: int) -> tuple[Floats, Floats]:
    """Coordinates of the pixels' centres, from −1 (top, left) to 1 (bottom, right)."""
    y = (np.arange(height) + 0.5) / height * 2 - 1
    x = (np.arange(width) + 0.5) / width * 2 - 1
    return np.broadcast_to(y[:, None], (height, width)), np.broadcast_to(x, (height, width))


def correlations(templates: Floats, masks: Sequence[Mask | Floats]) -> Floats:
    """Pearson correlation of each template (K, H, W) with each mask; 0 where either is flat."""

    def centred(rows: Floats) -> Floats:
        rows = rows.reshape(len(rows), -1).astype(np.float64)
        rows = rows - rows.mean(1, keepdims=True)
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        return rows / np.where(norms > 0, norms, 1)

    return np.asarray(centred(templates) @ centred(np.stack(masks).astype(np.float64)).T)
