"""Hybrids: the images of intervened runs, beside those of base and source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from ..base.errors import ProbeError
from ..generator.results import Result
from ..generator.units import UnitSet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False, repr=False)
class Hybrids(Result):
    """Images of intervened runs, on the generator's device.

    Attributes:
        images: (sets, n, C, H, W), one row of images per unit set.
        base: (n, C, H, W), without intervention.
        source: (n, C, H, W), the images whose channels were put in; None after ``intervene``.
        units: the unit sets, in order.
        provenance: generator, weights, layers, range, versions.
    """

    images: Tensor
    base: Tensor
    units: tuple[UnitSet, ...]
    provenance: dict[str, Any]
    source: Tensor | None = None

    def __len__(self) -> int:
        return len(self.units)

    def plot(
        self,
        ax: Axes | None = None,
        *,
        layout: Literal["rows", "columns"] = "rows",
        labels: Sequence[str] | None = None,
    ) -> tuple[Figure, Axes]:
        """A sheet of images: base, source, then one row (or column) per unit set (S003 Fig. 4).

        ``labels`` name the unit sets; by default by their channels.
        """
        from ..base.drawing import plot_images

        if layout not in ("rows", "columns"):
            raise ProbeError(f"layout is {layout!r}; give 'rows' or 'columns'")
        names = list(labels) if labels is not None else [units.label(2) for units in self.units]
        if len(names) != len(self.units):
            raise ProbeError(f"{len(names)} labels are given for {len(self.units)} unit sets; give one each")
        images, titles = [self.base], ["base"]
        if self.source is not None:
            images, titles = [*images, self.source], [*titles, "source"]
        rows = torch.stack([*images, *self.images.unbind()]).float().cpu().numpy()
        low, high = self.provenance["image_range"]
        return plot_images(rows, [*titles, *names], (low, high), ax=ax, columns=layout == "columns")
