"""Edited images, with those they were made from, and how far off the latents of given pictures were."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from ..base.display.description import Description, Picture, Table
from ..base.display.plot import Plot
from ..base.display.text import counted
from ..base.errors import whole
from ..base.formats.provenance import ImagesProvenance, Provenance
from ..base.formats.schema import OpenSchema
from ..base.formats.types import Text
from ..generator.results import Result, origin
from ..generator.units import UnitSet
from ..inversion.result import not_reached

if TYPE_CHECKING:
    from matplotlib.axes import Axes


# What latents were made of, as an edit's provenance says.
LATENTS, ENCODED, INVERTED = "latents", "encoded pictures", "inverted pictures"


class Edit(OpenSchema):
    """What an edit records of itself."""

    module: Text
    given: Text
    source: Text


class EditProvenance(ImagesProvenance, kw_only=True):
    """Of edited images."""

    edit: Edit


_COLUMNS = 8  # of the sheet that a notebook shows


@dataclass(frozen=True, eq=False, repr=False)
class Edited(Result):
    """Images with one module set to the source's values.

    Attributes:
        images: (n, C, H, W), edited.
        base: (n, C, H, W), of the same latents without the edit.
        source: (n, C, H, W), whose values were put in.
        units: the module, one unit set under its name.
        provenance: generator, weights, layers, what was given, strength, seed, range, versions.
        pictures: (n, C, H, W), where pictures were given and not latents.
        error: (n,) mean squared error of ``base`` against ``pictures``.
        relative_error: (n,) the same as a share of the variance of the generator's own images.
        source_relative_error: (n,) that of the source, where it was given as pictures.
    """

    images: Tensor
    base: Tensor
    source: Tensor
    units: tuple[UnitSet, ...]
    provenance: dict[str, Any]
    pictures: Tensor | None = None
    error: Tensor | None = None
    relative_error: Tensor | None = None
    source_relative_error: Tensor | None = None

    SHAPES: ClassVar[Mapping[str, str]] = {
        "images": "float n C size*",
        "base": "float n C size*",
        "source": "float n C size*",
        "units": "list 1",
        "pictures": "float n C size*",
        "error": "float n",
        "relative_error": "float n",
        "source_relative_error": "float n",
    }
    PROVENANCE: ClassVar[type[Provenance]] = EditProvenance

    def __len__(self) -> int:
        return len(self.images)

    @property
    def module(self) -> str:
        """The name of the module that was set."""
        return self.units[0].title(1)

    def warning(self) -> str:
        """What to know of the latents of pictures before the edit is believed; empty where there is nothing."""
        about = self.provenance["edit"]
        said = [
            (what, not_reached(error, searched=about[kind] != ENCODED))
            for what, kind, error in (
                ("", "given", self.relative_error),
                ("of the source: ", "source", self.source_relative_error),
            )
            if error is not None
        ]
        return "; ".join(f"{what}{sentence}" for what, sentence in said if sentence)

    def describe(self) -> Description:
        """What was set, how far the latents of pictures were off, and the images."""
        about = self.provenance["edit"]
        rows = tuple(
            (
                str(record["image"]),
                f"{record['change']:.3g}",
                *(["–"] if record["relative error"] is None else [f"{record['relative error']:.3g}"]),
            )
            for record in self.records()
        )
        facts = [("set", f"{counted(self.units[0].size, self.units[0].kind)} of {origin(self.provenance)}")]
        facts.append(("given", f"{about['given']}; the source as {about['source']}"))
        if self.relative_error is not None:
            facts.append(
                ("relative error", f"{float(self.relative_error.max()):.3g} at most, of the pictures' latents")
            )
        return Description(
            "Edited",
            f"{self.module!r}, {counted(len(self), 'image')}",
            facts=tuple(facts),
            table=Table(
                ("image", "change", "relative error"),
                rows,
                "Change: mean |difference| of pixels to the base; errors: of the base against the picture, relative to "
                "the variance of the generator's own images.",
            ),
            pictures=(Picture(self._caption(), lambda: self.plot(most=_COLUMNS)),),
            warning=self.warning(),
            page="editing",
        )

    def _caption(self) -> str:
        given = "" if self.pictures is None else "Pictures, the images of their latents (base), "
        return f"{given or 'Base, '}source, and base with the module's values of the source."

    def records(self) -> Iterator[dict[str, Any]]:
        """One for each image: how much the edit changes it, and of pictures the errors of their latents."""
        for number in range(len(self)):
            yield {
                "image": number,
                "change": float((self.images[number] - self.base[number]).abs().mean()),
                "error": None if self.error is None else float(self.error[number]),
                "relative error": None if self.relative_error is None else float(self.relative_error[number]),
            }

    def plot(self, ax: Axes | None = None, *, most: int | None = None) -> Plot[Axes]:
        """A sheet of images: pictures where there are any, base, source, edited; of the first ``most``, if given."""
        from ..base.drawing import plot_images

        shown = None if most is None else whole(most, "most", 1)
        rows = [] if self.pictures is None else [("picture", self.pictures)]
        rows += [("base", self.base), ("source", self.source), (self.module, self.images)]
        stack = torch.stack([images[:shown].detach().float().cpu() for _, images in rows]).numpy()
        low, high = self.provenance["image_range"]
        return plot_images(stack, [label for label, _ in rows], (low, high), ax=ax)
