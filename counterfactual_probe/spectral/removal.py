"""Filter removal: which filters carry colour, and which correct artefacts (S002 §4.2, conventions 21)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import torch
from msgspec import Meta
from torch import Tensor

from ..base.display.description import Description, Picture, Table
from ..base.display.plot import Plot
from ..base.display.text import as_text, counted
from ..base.formats.provenance import ImagesProvenance, Provenance
from ..base.formats.types import Name, Text
from ..generator.results import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The first two rows are no removals by ratio, and have no controls.
UNCONTROLLED = 2
_HEAD = ("removed", "filters left", "energy left", "saturation (control)", "finest scale × 1000 (control)")


class RemovalProvenance(ImagesProvenance, kw_only=True):
    """What a removal of filters records."""

    generator: Text
    layers: Annotated[list[Name], Meta(min_length=1)]


@dataclass(frozen=True, eq=False, repr=False)
class FilterRemoval(Result):
    """Images of a generator without some filters, the kernels (in, mid), of one of its convolutions.

    Rows are the original; without the filters of low energy; and, beyond these, without those of low ratio, without
    those of high ratio, and without equal numbers of the lowest and of the highest. Beside each of the last four stand
    controls: as many filters drawn at random, with the same energies.

    Attributes:
        names: what is removed in each row.
        filters: (rows,) how many filters are left.
        energy: (rows,) their share of all filters' energy; ``control_energy``: (rows − 2, draws).
        images: (rows, n, C, H, W); ``control_images``: (rows − 2, n, C, H, W), of the first draw.
        saturation: (rows, n) mean HSV saturation of each image; ``control_saturation``: (rows − 2, draws, n).
        fine: (rows, n) mean square of each image's finest Haar scale, on a range of 0…1; ``control_fine`` likewise.
    """

    names: tuple[str, ...]
    filters: Tensor
    energy: Tensor
    images: Tensor
    saturation: Tensor
    fine: Tensor
    control_energy: Tensor
    control_images: Tensor
    control_saturation: Tensor
    control_fine: Tensor
    provenance: dict[str, Any]

    SHAPES: ClassVar[Mapping[str, str]] = {
        "names": "list rows",
        "filters": "count rows",
        "energy": "float rows",
        "images": "float rows n C H W",
        "saturation": "float rows n",
        "fine": "float rows n",
        "control_energy": "float rows-2 draws",
        "control_images": "float rows-2 n C H W",
        "control_saturation": "float rows-2 draws n",
        "control_fine": "float rows-2 draws n",
    }
    PROVENANCE: ClassVar[type[Provenance]] = RemovalProvenance

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))  # a list, in a file

    def rows(self) -> list[dict[str, Any]]:
        """A dict for each row: filters and energy left, mean ± standard error over images of saturation and of
        finest-scale energy, and mean ± standard deviation over draws of the controls' means."""
        rows = []
        for i, name in enumerate(self.names):
            row: dict[str, Any] = {"removed": name, "filters": int(self.filters[i]), "energy": float(self.energy[i])}
            for what, values, controls in (
                ("saturation", self.saturation, self.control_saturation),
                ("fine", self.fine, self.control_fine),
            ):
                row[what] = float(values[i].mean())
                row[f"{what}_error"] = _or_zero(values[i].std() / len(values[i]) ** 0.5)
                if i >= UNCONTROLLED:
                    draws = controls[i - UNCONTROLLED].mean(1)
                    row[f"{what}_control"] = float(draws.mean())
                    row[f"{what}_control_spread"] = _or_zero(draws.std())
            if i >= UNCONTROLLED:
                row["energy_control"] = float(self.control_energy[i - UNCONTROLLED].mean())
            rows.append(row)
        return rows

    def records(self) -> list[dict[str, Any]]:
        """``rows``, all with the same columns: None where there is no control."""
        rows = self.rows()
        columns = dict.fromkeys(name for row in rows for name in row)
        return [{name: row.get(name) for name in columns} for row in rows]

    def describe(self) -> Description:
        """A line for each removal with its control beside it, and the images."""
        rows = []
        for row in self.rows():
            cells = [row["removed"], f"{row['filters']:,}", f"{row['energy']:.3f}"]
            if "energy_control" in row:
                cells[2] += f" ({row['energy_control']:.3f})"
            for what, scale in (("saturation", 1), ("fine", 1000)):
                cell = f"{scale * row[what]:.3f} ± {scale * row[what + '_error']:.3f}"
                if (control := f"{what}_control") in row:
                    cell += f" ({scale * row[control]:.3f} ± {scale * row[control + '_spread']:.3f})"
                cells.append(cell)
            rows.append(tuple(cells))
        about = self.provenance
        return Description(
            "FilterRemoval",
            f"{about['generator']}: filters of {about['layers'][0]} removed, {counted(self.images.shape[1], 'image')}",
            table=Table(_HEAD, tuple(rows), "In brackets: as many filters drawn at random, of the same energies."),
            pictures=(
                Picture("Images without the filters, and below them without as many at random.", self.plot),
                Picture("Saturation and finest-scale energy beside their controls.", self.plot_measures),
            ),
            page="spectral",
        )

    def to_text(self) -> str:
        """The rows as aligned lines."""
        return as_text(self.describe())

    def plot(self, ax: Axes | None = None, *, most: int = 8) -> Plot[Axes]:
        """A sheet of images: a row for each removal, and below it one for its control (S002 Fig. 6)."""
        from ..base.drawing import plot_images

        rows, labels = [], []
        for i, name in enumerate(self.names):
            rows.append(self.images[i, :most])
            labels.append(f"{f'without {name}' if i else 'original'}\n{int(self.filters[i]):,} filters")
            if i >= UNCONTROLLED:
                rows.append(self.control_images[i - UNCONTROLLED, :most])
                labels.append("as many,\nat random")
        low, high = self.provenance["image_range"]
        return plot_images(torch.stack(rows).float().cpu().numpy(), labels, (low, high), ax=ax)

    def plot_measures(self, axes: Sequence[Axes] | None = None) -> Plot[list[Axes]]:
        """Saturation and finest-scale energy of each row beside its control, with error bars."""
        from .plots import plot_removal

        return plot_removal(self.rows(), axes=axes)


def _or_zero(error: Tensor) -> float:
    """The error of a single value is unknown; a bar of no length is drawn for it."""
    return float(torch.nan_to_num(error))
