"""How near hybrids are to images that the generator makes itself (S003 Def. 2), searched in its latents."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..base.display.text import counted
from ..base.errors import ProbeError
from ..editing.choice import axis_of
from ..generator import latents as lt
from ..generator.adapter import GeneratorAdapter
from ..generator.latents import Latents
from ..generator.units import UnitSet
from ..hybrids.hybridizer import Hybridizer
from ..inversion.invert import inverted_from, variance_of_own
from ..modules.clustering import Array

Encode: TypeAlias = Callable[[Tensor], Latents]
_SHARE = 0.5  # of the coordinates of mixed latents that are the source's


class Nearest(NamedTuple):
    """Images, and the nearest that the generator was found to make itself.

    Attributes:
        groups: what the images are.
        faithfulness: (groups, n) 1 − ‖nearest − image‖² / min(‖base − image‖², ‖source − image‖²).
        distances: (groups, n) mean squared distance over the variance of the generator's own images.
        images, nearest: (groups, n, C, H, W).
    """

    groups: tuple[str, ...]
    faithfulness: Array
    distances: Array
    images: Tensor
    nearest: Tensor


@dataclass(frozen=True, eq=False)
class Searched:
    """The pairs whose images are searched among the generator's own.

    Attributes:
        z1, z2: of base and source, where each search starts.
        other: latents that have nothing to do with these.
        random: a random set for each pair, or none.
        regions: (K, 1, H, W) of the modules.
    """

    generator: GeneratorAdapter
    modules: Sequence[UnitSet]
    z1: Latents
    z2: Latents
    other: Latents
    random: Sequence[UnitSet]
    regions: npt.NDArray[np.bool_]
    seed: int

    def images(self) -> Iterator[tuple[str, Tensor]]:
        """Groups of images, one for each pair.

        The first two the generator makes itself, so that whatever distance is found is the search's own fault: samples
        of other latents, and of mixed ones, as near to base and source as a hybrid may be. Random sets and collages
        (pixels of the source inside of a module's region, of the base outside) stand in the modules' places in turn.
        """
        yield "other samples", self.generator(self.other, seed=self.seed)
        yield "mixed latents", self.generator(lt.mix(self.z1, self.z2, _SHARE, self.seed), seed=self.seed)
        layers = sorted({layer for units in (*self.modules, *self.random) for layer in units})
        hybridizer = Hybridizer(self.generator, layers, axis=axis_of(self.modules[0]))
        hybrids = hybridizer.hybridize(self.z1, self.z2, units=[*self.modules, *self.random], seed=self.seed)
        yield from zip([module.name for module in self.modules], hybrids.images, strict=False)
        k, n = len(self.modules), len(hybrids.base)
        if self.random:
            yield "random sets", torch.stack([hybrids.images[k + i, i] for i in range(n)])
        inside = torch.from_numpy(self.regions)[torch.arange(n) % k].to(hybrids.base.device)
        source = hybrids.base if hybrids.source is None else hybrids.source
        yield "collages", torch.where(inside, source, hybrids.base)

    def nearest(self, encode: Encode | None, *, steps: int, show_progress: bool) -> Nearest:
        """Search from the latents of base and source, and from those that an encoder gives."""
        spread = variance_of_own(self.generator)
        originals = [self.generator(latents, seed=self.seed) for latents in (self.z1, self.z2)]
        columns: list[tuple[str, Array, Array, Tensor, Tensor]] = []
        for group, made in self.images():
            with torch.inference_mode(False):
                images = made.clone()
            from_encoder = [] if encode is None else [_encoded(self.generator, encode, images)]
            found = inverted_from(
                self.generator,
                images,
                [self.z1, self.z2, *from_encoder],
                spread=spread,
                steps=steps,
                seed=self.seed,
                show_progress=show_progress,
            )
            far = torch.stack([(one - images).double().square().flatten(1).mean(1) for one in originals]).amin(0).cpu()
            # An image that is an original is an own one; and no search ends further away than it begins.
            missed = torch.where(far > 0, found.error.double() / far, 0.0).clamp(0, 1)
            distances = found.relative_error.double().numpy()
            columns.append((group, (1 - missed).numpy(), distances, images.float().cpu(), found.images.float().cpu()))
        groups, faithfulness, far_off, shown, nearest = zip(*columns, strict=True)
        return Nearest(
            tuple(groups), np.stack(faithfulness), np.stack(far_off), torch.stack(shown), torch.stack(nearest)
        )


def _encoded(generator: GeneratorAdapter, encode: Encode, images: Tensor) -> Latents:
    """What an encoder gives for the images, if the generator can take it."""
    given: Any = encode(images)
    cure = "give encoder= a function from images (n, C, H, W) to latents in the form that .sample() returns"
    try:
        count = generator.check(given, "the latents of the encoder")
    except ProbeError as error:
        raise ProbeError(f"the encoder does not fit: {error}") from error
    if count != len(images):
        raise ProbeError(f"the encoder gives {counted(count, 'latent')} for {counted(len(images), 'image')}; {cure}")
    example = dict(lt.named_tensors(generator.example))
    for label, value in lt.named_tensors(given):
        if value.shape[1:] != example[label].shape[1:]:
            raise ProbeError(
                f"the encoder gives {label} of shape {tuple(value.shape[1:])} and {generator.name} takes "
                f"{tuple(example[label].shape[1:])}; {cure}"
            )
    types = {label: value.dtype for label, value in example.items()}
    labels = iter([label for label, _ in lt.named_tensors(given)])
    return lt.apply(given, lambda value: value.detach().to(types[next(labels)]))
