"""Named parts of the image, and which of them a template shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..base.errors import ProbeError

Mask: TypeAlias = npt.NDArray[np.bool_]
Floats: TypeAlias = npt.NDArray[np.floating[Any]]

# A template is named after a region when its correlation with the region's mask reaches this.
NAMED_FROM = 0.3


@dataclass(frozen=True)
class Regions:
    """Named parts of a generator's images, and optionally what was seen in its modules before.

    Attributes:
        masks: name -> (H, W) mask.
        layer, expected: a layer, and the names of the parts that its templates showed in an earlier
            study of this generator, on other latents.
        note: how the masks were made, and what to keep in mind when templates are compared with them.
    """

    masks: Mapping[str, Mask]
    layer: str | None = None
    expected: tuple[str, ...] = ()
    note: str = ""


def generic_regions(height: int, width: int) -> Regions:
    """Parts that any image has: centre, frame and the four sides."""
    y, x = grid(height, width)
    return Regions(
        {
            "centre": (abs(y) < 0.5) & (abs(x) < 0.5),
            "frame": (abs(y) > 0.75) | (abs(x) > 0.75),
            "top": y < -0.33,
            "bottom": y > 0.33,
            "left side": x < -0.33,
            "right side": x > 0.33,
        }
    )


def grid(height: int, width: int) -> tuple[Floats, Floats]:
    """Coordinates of the pixels' centres, from −1 (top, left) to 1 (bottom, right)."""
    y = (np.arange(height) + 0.5) / height * 2 - 1
    x = (np.arange(width) + 0.5) / width * 2 - 1
    return np.broadcast_to(y[:, None], (height, width)), np.broadcast_to(x, (height, width))


def correlations(templates: Floats, masks: Sequence[Mask]) -> Floats:
    """Pearson correlation of each template (K, H, W) with each mask; 0 where either is flat."""

    def centred(rows: Floats) -> Floats:
        rows = rows.reshape(len(rows), -1).astype(np.float64)
        rows = rows - rows.mean(1, keepdims=True)
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        return rows / np.where(norms > 0, norms, 1)

    return np.asarray(centred(templates) @ centred(np.stack(masks).astype(np.float64)).T)


def describe(templates: Floats, regions: Regions) -> list[tuple[str | None, float]]:
    """For each template the region it correlates with most, None below ``NAMED_FROM``, and the correlation."""
    names = list(regions.masks)
    table = correlations(templates, [regions.masks[name] for name in names])
    best = table.argmax(1)
    described = []
    for k, region in enumerate(best):
        value = float(table[k, region])
        described.append((names[region] if value >= NAMED_FROM else None, value))
    return described


def module_names(templates: Floats, regions: Regions) -> list[str]:
    """Names of modules: the region that each template shows, with the module's number where that is ambiguous."""
    size = next(iter(regions.masks.values())).shape
    if templates.shape[1:] != size:
        raise ProbeError(
            f"the templates are {templates.shape[1:]} and the regions {size}; fit modules on maps of the images' size, "
            "or name them one by one"
        )
    return numbered_names([name for name, _ in describe(templates, regions)])


def numbered_names(shown: Sequence[str | None]) -> list[str]:
    """Names of modules that show these parts of the image, with the module's number where that is ambiguous.

    >>> numbered_names(["eyes and mouth", "frame", None, "frame"])
    ['eyes and mouth', 'frame (module 2)', 'module 3', 'frame (module 4)']
    """
    numbered = [f"module {k}" for k in range(1, len(shown) + 1)]
    return [
        number if name is None else name if shown.count(name) == 1 else f"{name} ({number})"
        for name, number in zip(shown, numbered, strict=True)
    ]


def agreement(templates: Floats, regions: Regions) -> list[tuple[str, int, float]]:
    """The expected parts matched one to one with templates: (part, template, correlation)."""
    from scipy.optimize import linear_sum_assignment

    table = correlations(templates, [regions.masks[name] for name in regions.expected])
    rows = linear_sum_assignment(table.T, maximize=True)[1]
    return [(name, int(rows[i]), float(table[rows[i], i])) for i, name in enumerate(regions.expected[: len(rows)])]
