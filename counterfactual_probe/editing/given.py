"""What an edit starts from: latents as they are, or pictures, whose latents an encoder gives or inversion finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ..base.errors import ProbeError, brief
from ..generator import latents as lt
from ..generator.adapter import GeneratorAdapter
from ..generator.images import require_images
from ..generator.latents import Latents
from ..inversion.invert import inverted, relative_errors, variance_of_own
from ..inversion.result import Inversion
from .result import ENCODED, INVERTED, LATENTS

# Latents, images (n, C, H, W), or what :func:`invert` found.
GivenLike: TypeAlias = "Latents | Inversion"


@dataclass(frozen=True, eq=False)
class Given:
    """Latents, and of pictures how far the latents' images are off.

    Attributes:
        kind: "latents", "encoded pictures" or "inverted pictures".
        pictures: (n, C, H, W), if they were given.
        error, relative_error: (n,) as those of an :class:`Inversion`.
    """

    latents: Latents
    kind: str = LATENTS
    pictures: Tensor | None = None
    error: Tensor | None = None
    relative_error: Tensor | None = None

    @property
    def n(self) -> int:
        return lt.count(self.latents)

    def repeated(self, n: int) -> Given:
        """A single one for each of n; any other number as it is."""
        if self.n != 1 or n == 1:
            return self
        rows = torch.zeros(n, dtype=torch.long)
        others = (self.pictures, self.error, self.relative_error)
        return Given(lt.take(self.latents, rows), self.kind, *(None if one is None else one[rows] for one in others))


def as_given(generator: GeneratorAdapter, given: GivenLike, what: str, options: Mapping[str, Any]) -> Given:
    """The latents of what is given; ``options`` are those of an inversion."""
    if isinstance(given, Inversion):
        generator.check(given.latents, f"the latents of {what}")
        return _of_inversion(given)
    checked: Any = given  # may be anything
    if isinstance(given, Tensor) and _are_pictures(generator, given, what):
        return _of_pictures(generator, given, options)
    if not isinstance(checked, (Tensor, dict, tuple, list)):
        size = _sizes(generator.image_size)
        raise ProbeError(f"{what} is {brief(checked)}; give images (n, {size}), latents, or what cp.invert found")
    generator.check(given, what)
    return Given(given)


def _of_pictures(generator: GeneratorAdapter, pictures: Tensor, options: Mapping[str, Any]) -> Given:
    require_images(pictures, generator.image_size, generator.image_range, generator.device)
    encode = getattr(generator, "encode", None)
    if encode is None:
        return _of_inversion(inverted(generator, pictures, **options))
    latents = encode(pictures)
    error = (generator(latents) - pictures).double().square().flatten(1).mean(1).cpu()
    return Given(latents, ENCODED, pictures, error, relative_errors(error, variance_of_own(generator)))


def _of_inversion(found: Inversion) -> Given:
    return Given(found.latents, INVERTED, found.pictures, found.error, found.relative_error)


def _are_pictures(generator: GeneratorAdapter, given: Tensor, what: str) -> bool:
    """Whether a tensor is of pictures: where latents have the size of images, it is of latents."""
    example, size = generator.example, generator.image_size
    if isinstance(example, Tensor) and given.shape[1:] == example.shape[1:]:
        return False
    if given.dim() in (len(size), len(size) + 1) and (not isinstance(example, Tensor) or given.dim() != example.dim()):
        return True
    if tuple(given.shape[-2:]) == tuple(size[-2:]):
        return True
    latents = (
        f"latents (n, {_sizes(example.shape[1:])})" if isinstance(example, Tensor) else "latents as .sample() gives"
    )
    raise ProbeError(f"{what} has shape {tuple(given.shape)}; give images (n, {_sizes(size)}) or {latents}")


def _sizes(shape: Any) -> str:
    return ", ".join(map(str, shape))
