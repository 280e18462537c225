"""What pages ask for, checked field by field, and the pixels that answer it."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
import torch
from torch import Tensor

from ...base.errors import ProbeError
from ...base.formats.schema import Schema, conform
from ...base.formats.types import Channel, Name
from ...generator.latents import Latents
from ...hybrids.hybridizer import Hybridizer
from ..contents import Contents
from ..layer import coarse

SAMPLES = 4096  # to choose from, where images are computed as they are asked for
LEAST, MOST = -1.0, 2.0  # strength, as the page's slider

_Sample: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=SAMPLES)]
_Strength: TypeAlias = Annotated[float, msgspec.Meta(ge=LEAST, le=MOST)]


class Mask(Schema):
    """A part of the image, on the page's grid."""

    height: Annotated[int, msgspec.Meta(ge=1, le=2**12)]
    width: Annotated[int, msgspec.Meta(ge=1, le=2**12)]
    values: list[Literal[0, 1]]


class Recipe(Schema):
    """A hybrid: base and source by their numbers, and what is set, how far and where."""

    base: _Sample
    source: _Sample
    units: dict[Name, list[Channel]]
    strength: _Strength
    where: Mask | None


class Asked(Schema):
    """A picture of a sample, or a hybrid."""

    kind: Literal["picture", "hybrid"]
    sample: _Sample | None = None
    recipe: Recipe | None = None


class Answers:
    """Images of one explorer's generator, for whatever page asks."""

    def __init__(self, contents: Contents) -> None:
        self.contents = contents
        self._channels = {part.layer.name: part.layer.channels for part in contents.parts}

    def page(self) -> dict[str, Any]:
        """What a page shows that gets its images here."""
        return self.contents.live_json(SAMPLES)

    def pixels(self, request: Any) -> Tensor:
        """The image (C, H, W) that a request asks for; a ProbeError says what is wrong with it."""
        try:
            asked = conform(request, Asked)
        except ValueError as error:
            raise ProbeError(f"the request cannot be answered: {error}") from None
        if asked.kind == "picture" and asked.sample is not None:
            return self._image(self.contents.latents(asked.sample))
        if asked.kind == "hybrid" and asked.recipe is not None:
            return self._hybrid(asked.recipe)
        raise ProbeError(f"the request asks for a {asked.kind} and does not say of what")

    def _image(self, latents: Latents) -> Tensor:
        return self.contents.generator(latents)[0].float().cpu()

    def _hybrid(self, recipe: Recipe) -> Tensor:
        units = {layer: channels for layer, channels in recipe.units.items() if channels}
        if unknown := units.keys() - self._channels.keys():
            raise ProbeError(f"the request sets layer {min(unknown)!r}, which is not on the page")
        base = self.contents.latents(recipe.base)
        if not units:
            return self._image(base)
        hybrids = Hybridizer(self.contents.generator, list(units)).hybridize(
            base,
            self.contents.latents(recipe.source),
            units=units,
            strength=recipe.strength,
            where=None if recipe.where is None else self._mask(recipe.where),
        )
        return hybrids.images[0, 0].float().cpu()

    def _mask(self, given: Mask) -> Tensor:
        """At the image's size."""
        rows, columns = self.contents.generator.image_size[1:]
        grid = [coarse(rows), coarse(columns)]
        if [given.height, given.width] != grid or len(given.values) != given.height * given.width:
            raise ProbeError(
                f"the request's region is {given.height}×{given.width} with {len(given.values)} values, and the page's "
                f"grid {grid[0]}×{grid[1]}"
            )
        mask = torch.tensor(given.values, dtype=torch.float32).view(grid)
        return mask.repeat_interleave(rows // grid[0], 0).repeat_interleave(columns // grid[1], 1)
