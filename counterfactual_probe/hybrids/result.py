"""Hybrids: the images of intervened runs, with those of base and source."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor

from ..base.display.description import Description, Picture, Table
from ..base.display.plot import Plot
from ..base.display.text import counted
from ..base.errors import ProbeError, one_of, strings, whole
from ..base.formats.provenance import ImagesProvenance, Provenance
from ..generator.results import Result, kind_of, origin
from ..generator.units import UnitSet

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROWS, _COLUMNS = 12, 8  # of the sheet that a notebook shows


@dataclass(frozen=True, eq=False, repr=False)
class Hybrids(Result):
    """Images of intervened runs, on the generator's device.

    Attributes:
        images: (sets, n, C, H, W), one row of images per unit set.
        base: (n, C, H, W), without intervention.
        source: (n, C, H, W), the images whose units' values were put in; None after ``intervene``.
        units: the unit sets, in order.
        provenance: generator, weights, layers, range, versions.
    """

    images: Tensor
    base: Tensor
    units: tuple[UnitSet, ...]
    provenance: dict[str, Any]
    source: Tensor | None = None

    SHAPES: ClassVar[Mapping[str, str]] = {
        "images": "float sets n C size*",
        "base": "float n C size*",
        "source": "float n C size*",
        "units": "list sets",
    }
    PROVENANCE: ClassVar[type[Provenance]] = ImagesProvenance

    def __len__(self) -> int:
        return len(self.units)

    @property
    def titles(self) -> list[str]:
        """The label of each unit set in figures and tables: its name, or its units."""
        return [item.title(number) for number, item in enumerate(self.units, 1)]

    def describe(self) -> Description:
        """How much every unit set changes the image, and the sheet of images."""
        rows, counts = [], f"{kind_of(self.provenance)}s"
        for record in self.records():
            distances = [record["distance to base"], *([] if self.source is None else [record["distance to source"]])]
            rows.append((str(record["units"]), str(record[counts]), *(f"{value:.3g}" for value in distances)))
        head = ("units", counts, "distance to base", *([] if self.source is None else ["distance to source"]))
        size = "×".join(map(str, self.base.shape[1:]))
        originals = "Base" if self.source is None else "Base, source"
        shown = dataclasses.replace(
            self,
            images=self.images[:_ROWS, :_COLUMNS],
            base=self.base[:_COLUMNS],
            units=self.units[:_ROWS],
            source=None if self.source is None else self.source[:_COLUMNS],
        )
        return Description(
            "Hybrids",
            f"{origin(self.provenance)}: {counted(len(self), 'unit set')} × "
            f"{counted(len(self.base), 'image')} of {size}",
            table=Table(head, tuple(rows), "Distances: mean |difference| of pixels."),
            pictures=(Picture(f"{originals}, and a row of hybrids for each unit set.", shown.plot),),
            page="hybrids",
        )

    def records(self) -> Iterator[dict[str, Any]]:
        """One for each unit set: how many units, and mean |difference| of pixels to base and source."""
        for title, item, images in zip(self.titles, self.units, self.images, strict=True):
            source = None if self.source is None else float((images - self.source).abs().mean())
            yield {
                "units": title,
                "layers": "; ".join(sorted(item)),
                f"{item.kind}s": item.size,
                "distance to base": float((images - self.base).abs().mean()),
                "distance to source": source,
            }

    def plot(
        self,
        ax: Axes | None = None,
        *,
        layout: Literal["rows", "columns"] = "rows",
        labels: Sequence[str] | None = None,
        most: int | None = None,
    ) -> Plot[Axes]:
        """A sheet of images: base, source, then one row (or column) per unit set (S003 Fig. 4).

        ``labels`` name the unit sets; by default their own names, or their units. Of the first ``most`` pairs alone,
        if that is given.
        """
        from ..base.drawing import plot_images

        one_of(layout, "layout", ("rows", "columns"))
        names = strings(labels, "labels") if labels is not None else self.titles
        if len(names) != len(self.units):
            raise ProbeError(f"{len(names)} labels are given for {len(self.units)} unit sets; give one each")
        images, titles = [self.base], ["base"]
        if self.source is not None:
            images, titles = [*images, self.source], [*titles, "source"]
        shown = None if most is None else whole(most, "most", 1)
        rows = torch.stack([*images, *self.images.unbind()])[:, :shown].float().cpu().numpy()
        low, high = self.provenance["image_range"]
        return plot_images(rows, [*titles, *names], (low, high), ax=ax, columns=layout == "columns")
