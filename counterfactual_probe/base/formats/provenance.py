"""What results record about where they come from, as files of them must have it."""

from __future__ import annotations

from typing import Literal

from .schema import OpenSchema
from .types import Name, Number, Pair, Text


class Provenance(OpenSchema, kw_only=True):
    """What every result may record; subclasses declare what theirs must."""

    generator: Text | None = None
    layers: list[Name] | None = None
    image_range: Pair[Number] | None = None
    n_pairs: int | None = None
    versions: dict[Name, Text] | None = None
    weights_sha256: Name | None = None
    axis: Literal["channel", "token", "head", "feature"] | None = None

    def __post_init__(self) -> None:
        # Images are shown as shares of it.
        if self.image_range is not None and not self.image_range[0] < self.image_range[1]:
            raise ValueError(f"image_range is {self.image_range} and must name the smaller number first")


class ImagesProvenance(Provenance, kw_only=True):
    """Of results that hold images: the range of their values is needed to show them."""

    image_range: Pair[Number]
