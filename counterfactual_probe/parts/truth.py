"""The ground-truth part of each pixel, in one image or many, and how a partition of the pixels scores against it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..base.display.text import counted
from ..base.errors import ProbeError, strings
from ..base.formats.elsewhere import plain_array
from ..modules.clustering import Array, Floats, Labels
from .partitions import adjusted_rand, contingency_tables, match_parts, overlaps, strongest
from .result import PartsAgreement


class Truth:
    """The parts of images.

    Args:
        masks: (P, H, W) or (n, P, H, W), as :func:`parts_agreement` takes them.
        size: (H, W) that the masks must have.
        names: of the parts; by default their numbers from 1.

    Attributes:
        labels: (n, pixels) part of each pixel, −1 for none.
        parts: (P, H, W) share of the images in which a pixel is the part's.
    """

    def __init__(self, masks: Any, size: tuple[int, int], names: Sequence[str] | None) -> None:
        values = _mask_shares(masks, size)
        self.size = size
        n, p = values.shape[:2]
        self.names = [f"part {part + 1}" for part in range(p)] if names is None else strings(names, "names")
        if len(self.names) != p:
            raise ProbeError(f"{counted(len(self.names), 'name')} given for {counted(p, 'part')}; name each")
        self.labels: Labels = strongest(values.reshape(n, p, -1))
        shown = np.stack([(self.labels == part).mean(0) for part in range(p)])
        if not shown.any(1).all():
            empty = self.names[int(np.flatnonzero(~shown.any(1))[0])]
            raise ProbeError(f"{empty} has no pixel in any of the {n} images; leave its mask out")
        self.parts: Array = shown.reshape(p, *size)

    def tables(self, regions: Labels, k: int) -> Array:
        return contingency_tables(regions, self.labels, k, len(self.parts))

    def means(self, regions: Labels, k: int) -> tuple[float, float]:
        """Mean IoU and mean ARI of k regions (n, pixels), or (1, pixels) for all images."""
        counts = self.tables(regions, k)
        return match_parts(overlaps(counts))[1], float(adjusted_rand(counts).mean())

    def result(
        self, regions: Labels, templates: Floats, chance: Sequence[tuple[float, float]], about: dict[str, Any]
    ) -> PartsAgreement:
        """The regions' scores, next to those of random groups and of each pixel's most frequent part."""
        counts = self.tables(regions, len(templates))
        iou, ari = overlaps(counts), adjusted_rand(counts)
        pairs, mean_iou = match_parts(iou)
        # A pixel that is in no part in most images belongs to none.
        none = (self.labels < 0).mean(0)
        most = strongest(self.parts.reshape(1, len(self.parts), -1))
        most = np.where(none > self.parts.reshape(len(self.parts), -1).max(0), -1, most)
        majority_iou, majority_ari = self.means(most, len(self.parts))
        by_chance = np.array(chance, np.float64).reshape(-1, 2)
        return PartsAgreement(
            mean_iou=mean_iou,
            mean_ari=float(ari.mean()),
            iou=iou,
            ari=ari,
            pairs=pairs,
            chance_iou=by_chance[:, 0].copy(),
            chance_ari=by_chance[:, 1].copy(),
            majority_iou=majority_iou,
            majority_ari=majority_ari,
            templates=templates,
            parts=self.parts,
            provenance=about | {"parts": self.names, "images": len(self.labels), "controls": len(chance)},
        )


def _mask_shares(masks: Any, size: tuple[int, int]) -> Array:
    """Masks as an array (n, P, H, W) of shares."""
    given = plain_array(masks, "the masks", "booleans (P, H, W), or (n, P, H, W) of n images")
    if given.ndim not in (3, 4) or 0 in given.shape:
        raise ProbeError(
            f"the masks are {given.dtype} {given.shape}; give booleans (P, H, W), or (n, P, H, W) of n images"
        )
    if given.shape[-2:] != size:
        raise ProbeError(
            f"the masks are {given.shape[-2]}×{given.shape[-1]} pixels and the modules' maps {size[0]}×{size[1]}; "
            "make masks of that size, such as Scene(size=…).masks, or maps of the images' size"
        )
    values = given.astype(np.float64).reshape(-1, *given.shape[-3:])
    if not ((values >= 0) & (values <= 1)).all():
        raise ProbeError(
            f"the masks range from {values.min():.3g} to {values.max():.3g}; give booleans, or shares from 0 to 1"
        )
    if (twice := np.argwhere(values.sum(1) > 1 + 1e-6)).size:
        image, row, column = twice[0]
        raise ProbeError(
            f"pixel ({row}, {column}) of image {image} belongs to several parts; give each pixel to one part at most"
        )
    return values
