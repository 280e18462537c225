"""What a comparison of modules with the known parts of a scene finds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..base.display.description import Description, Picture, Table
from ..base.display.plot import Plot
from ..base.display.text import counted
from ..base.formats.provenance import Provenance
from ..base.formats.types import Name
from ..generator.results import Result, kind_of
from ..modules.clustering import Array, Floats, Labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CHANCE = 0.95  # share of random groups that agreement should be above


class PartsProvenance(Provenance, kw_only=True):
    """What an agreement records."""

    parts: list[Name]


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

    SHAPES: ClassVar[Mapping[str, str]] = {
        "iou": "float K P",
        "ari": "float images",
        "pairs": "count matched 2",
        "chance_iou": "float controls",
        "chance_ari": "float controls",
        "templates": "float K H W",
        "parts": "float P H W",
    }
    PROVENANCE: ClassVar[type[Provenance]] = PartsProvenance

    def _contradiction(self) -> str | None:
        names, parts = self.provenance["parts"], len(self.parts)
        if len(names) != parts:
            return f"its provenance names {len(names)} parts and parts has {parts}"
        if len(self.pairs) and (self.pairs.max(axis=0) >= self.iou.shape).any():
            return f"pairs names module or part {int(self.pairs.max())} and iou is {self.iou.shape}"
        return super()._contradiction()

    @property
    def above_chance(self) -> float:
        """The share of the random groups whose mean IoU is smaller; NaN without any."""
        return float((self.chance_iou < self.mean_iou).mean()) if len(self.chance_iou) else float("nan")

    def describe(self) -> Description:
        """The agreement beside chance and the best that fixed places can reach, and each part's module."""
        k, p = self.iou.shape
        rows = tuple((record["part"], record["module"], f"{record['iou']:.2f}") for record in self.records())
        above = self.above_chance
        return Description(
            "PartsAgreement",
            f"mean IoU {_beside(self.mean_iou, self.chance_iou, self.majority_iou)}, "
            f"ARI {_beside(self.mean_ari, self.chance_ari, self.majority_ari)}; "
            f"{counted(k, 'module')}, {counted(p, 'part')}, {counted(len(self.ari), 'image')}",
            facts=()
            if math.isnan(above)
            else (("random groups", f"{len(self.chance_iou)}, of which {above:.0%} agree less"),),
            table=Table(("part", "module", "IoU"), rows),
            pictures=(Picture("The matched parts over the templates of their modules.", self.plot),),
            warning=f"random groups of {kind_of(self.provenance)}s agree with the parts about as well"
            if above < _CHANCE
            else "",
            page="known-parts",
        )

    def records(self) -> Iterator[dict[str, Any]]:
        """One for each part that has a module."""
        names = self.provenance["parts"]
        for module, part in self.pairs[np.argsort(self.pairs[:, 1])].tolist():
            yield {"part": names[part], "module": f"module {module + 1}", "iou": float(self.iou[module, part])}

    def plot(self, ax: Axes | None = None) -> Plot[Axes]:
        """The matched parts, how often each pixel is theirs, over the templates of their modules."""
        from ..modules.plots import plot_templates

        order = self.pairs[np.argsort(self.pairs[:, 1])]
        titles = [f"{record['part']}\n{record['module']}, IoU {record['iou']:.2f}" for record in self.records()]
        return plot_templates(np.stack([self.parts[order[:, 1]], self.templates[order[:, 0]]]), titles, ax=ax)


def _beside(value: float, chance: Array, majority: float) -> str:
    by_chance = f"chance {chance.mean():.3f}, " if len(chance) else ""
    return f"{value:.3f} ({by_chance}majority {majority:.3f})"
