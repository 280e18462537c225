"""What a comparison of modules with the known parts of a scene finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..generator.results import Result
from ..modules.clustering import Array, Floats, Labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False, repr=False)
class PartsAgreement(Result):
    """How far the places where modules act are the parts of a scene.

    Attributes:
        mean_iou: over the parts, intersection over union of each with the module matched to it (0 for a part that has
            none), mean over images.
        mean_ari: adjusted Rand index between the modules and the parts of pixels, mean over images.
        iou: (K, P) intersection over union of each module's region with each part, mean over the images that show it.
        ari: (images,)
        pairs: (min(K, P), 2) module and part that are matched, one to one, for the largest sum of ``iou``.
        chance_iou, chance_ari: (controls,) the two means for random groups of as many channels.
        majority_iou, majority_ari: the two means for each pixel's most frequent part: about the most that places can
            reach that are the same in all images.
        templates: (K, H, W) what the regions are made of; of regions image by image, how often a pixel is the module's.
        parts: (P, H, W) share of the images in which a pixel is the part's.
        provenance: how regions were made, names of the parts, seed, and how the modules were found.
    """

    mean_iou: float
    mean_ari: float
    iou: Array
    ari: Array
    pairs: Labels
    chance_iou: Array
    chance_ari: Array
    majority_iou: float
    majority_ari: float
    templates: Floats
    parts: Array
    provenance: dict[str, Any]

    @property
    def above_chance(self) -> float:
        """The share of the random groups whose mean IoU is smaller; NaN without any."""
        return float((self.chance_iou < self.mean_iou).mean()) if len(self.chance_iou) else float("nan")

    def __repr__(self) -> str:
        k, p = self.iou.shape
        return (
            f"PartsAgreement(mean IoU {_beside(self.mean_iou, self.chance_iou, self.majority_iou)}, "
            f"ARI {_beside(self.mean_ari, self.chance_ari, self.majority_ari)}; "
            f"{k} modules, {p} parts, {len(self.ari)} images)"
        )

    def plot(self, ax: Axes | None = None) -> tuple[Figure, Axes]:
        """The matched parts, how often each pixel is theirs, over the templates of their modules."""
        from ..modules.plots import plot_templates

        order = self.pairs[np.argsort(self.pairs[:, 1])]
        names = self.provenance["parts"]
        titles = [f"{names[part]}\nmodule {module + 1}, IoU {self.iou[module, part]:.2f}" for module, part in order]
        return plot_templates(np.stack([self.parts[order[:, 1]], self.templates[order[:, 0]]]), titles, ax=ax)


def _beside(value: float, chance: Array, majority: float) -> str:
    by_chance = f"chance {chance.mean():.3f}, " if len(chance) else ""
    return f"{value:.3f} ({by_chance}majority {majority:.3f})"
