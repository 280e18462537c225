"""Inversion: latents of given pictures, and how far off their images are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from ..base.display.description import Description, Picture, Table
from ..base.display.plot import Plot
from ..base.display.text import counted
from ..base.errors import first_few, whole
from ..base.formats.provenance import ImagesProvenance, Provenance
from ..generator.latents import Latents, named_tensors
from ..generator.results import Result, origin

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Of the variance of the generator's own images: an error above it is warned of. On dcgan-faces-small its own images are
# found to 0.0005, the same upside down to 0.03 to 0.15, and noise to 1.7.
REACHED = 0.02
_COLUMNS = 8  # of the sheet that a notebook shows


@dataclass(frozen=True, eq=False, repr=False)
class Inversion(Result):
    """Latents of given pictures.

    Attributes:
        latents: n of them, in the generator's form.
        pictures: (n, C, H, W), as they were given.
        images: (n, C, H, W), of the latents.
        error: (n,) mean squared error of the pixels.
        relative_error: (n,) as a share of the variance of the generator's own images: 0 is exact, and 1 no better than
            their mean.
        start_errors: (n, starts) mean squared error where each start ended, before the best was refined.
        provenance: generator, weights, starts, steps, seed, range, versions.
    """

    latents: Latents
    pictures: Tensor
    images: Tensor
    error: Tensor
    relative_error: Tensor
    start_errors: Tensor
    provenance: dict[str, Any]

    SHAPES: ClassVar[Mapping[str, str]] = {
        "pictures": "float n C size*",
        "images": "float n C size*",
        "error": "float n",
        "relative_error": "float n",
        "start_errors": "float n starts",
    }
    PROVENANCE: ClassVar[type[Provenance]] = ImagesProvenance

    def __len__(self) -> int:
        return len(self.error)

    def _contradiction(self) -> str | None:
        kept, n = named_tensors(self.latents)[0][1], len(self)
        return f"it holds {len(kept)} latents of {n} images" if len(kept) != n else super()._contradiction()

    @property
    def reached(self) -> Tensor:
        """(n,) whether an image is as close to its picture as to be of use: a relative error of at most 0.02."""
        return self.relative_error <= REACHED

    def warning(self) -> str:
        """What to know before the latents are used; empty where all pictures are reached."""
        return not_reached(self.relative_error)

    def describe(self) -> Description:
        """The errors, and pictures beside the images that were found."""
        rows = [
            (
                str(record["image"]),
                f"{record['error']:.3g}",
                f"{record['relative error']:.3g}",
                f"{record['worst start']:.3g}",
            )
            for record in self.records()
        ]
        return Description(
            "Inversion",
            f"{origin(self.provenance)}: {counted(len(self), 'image')} from "
            f"{counted(self.start_errors.shape[1], 'start')}",
            table=Table(
                ("image", "error", "relative error", "worst start"),
                tuple(rows),
                "Errors: mean squares of pixels; relative to the variance of the generator's own images.",
            ),
            pictures=(
                Picture("Pictures, and below each the closest image that was found.", lambda: self.plot(most=_COLUMNS)),
            ),
            warning=self.warning(),
            page="editing",
        )

    def records(self) -> Iterator[dict[str, Any]]:
        """One for each image: its error, also as a share, and those of the best and the worst start."""
        for number in range(len(self)):
            yield {
                "image": number,
                "error": float(self.error[number]),
                "relative error": float(self.relative_error[number]),
                "best start": float(self.start_errors[number].min()),
                "worst start": float(self.start_errors[number].max()),
            }

    def plot(self, ax: Axes | None = None, *, most: int | None = None) -> Plot[Axes]:
        """A sheet of pictures and, below each, the image of its latents; of the first ``most``, if that is given."""
        from ..base.drawing import plot_images

        shown = None if most is None else whole(most, "most", 1)
        rows = torch.stack([self.pictures[:shown].float().cpu(), self.images[:shown].float().cpu()]).numpy()
        low, high = self.provenance["image_range"]
        return plot_images(rows, ["picture", "found"], (low, high), ax=ax)


def not_reached(relative_error: Tensor, *, searched: bool = True) -> str:
    """A sentence on the images whose relative error is too large; empty where there are none.

    ``searched`` tells latents that inversion found from those of an encoder.
    """
    far = (relative_error > REACHED).nonzero()[:, 0].tolist()
    if not far:
        return ""
    which = first_few([f"{number} ({float(relative_error[number]):.2f})" for number in far])
    return (
        f"{len(far)} of {counted(len(relative_error), 'picture')} not reached: relative errors above {REACHED:g} are "
        f"of image {which}; {'try more starts or steps, or' if searched else 'give'} pictures cropped and aligned as "
        "the generator's own are"
    )
