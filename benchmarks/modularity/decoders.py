"""Small autoencoders of the rendered scene, whose parts (masks) and factors are known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
from known_parts import SEED, TRAINED, trained
from torch import Tensor

import counterfactual_probe as cp
from counterfactual_probe.data import Scene

from .methods import Labels

LAYERS = ("decoder.block3", "decoder.block6", "decoder.block9")
# Columns of the scene's factors that are exchanged together.
FACTORS = {"floor hue": [0], "wall hue": [1], "object hue": [2], "object": [3, 4, 5]}
_SHAPE = 4  # column; two objects of other shapes are not the same


@dataclass(frozen=True)
class Truth:
    """What is known of images that the methods have not seen.

    Attributes:
        masks: (n, parts, H, W)
        base, source: (pairs, latent) codes of images that differ in every factor.
        places: (parts, pairs, H, W) where each part is in the base, without the source's object; and where the object
            is in either.
        exchanged: (2^factors, pairs, C, H, W) what the decoder makes of the base with some of its factors set to the
            source's; set s holds factor j if bit j of s is 1, so the first is the base and the last the source.
    """

    masks: Tensor
    base: Tensor
    source: Tensor
    places: Tensor
    exchanged: Tensor


class Decoder:
    """A trained autoencoder with the codes of rendered images.

    Args:
        name: one of known_parts' models.
        folder: holds it, or is where it is trained to.
    """

    def __init__(self, name: str, folder: Path, *, steps: int) -> None:
        trained(name, folder, steps=steps)
        self.generator = cp.load(str(folder), device="cpu")
        self.scene = Scene(size=self.generator.image_size[1])

    def codes(self, labels: Labels) -> Tensor:
        """(n, latent) of the images with these factors."""
        made: Tensor = self.generator.encode(self.scene.render(labels).float() / 255)  # type: ignore[attr-defined]
        return made

    def samples(self, pairs: int) -> list[tuple[Tensor, Tensor]]:
        """Codes of base and source, for two independent samples of images."""
        codes = self.codes(self.scene.sample(4 * pairs, seed=SEED)).view(2, 2, pairs, -1)
        return [(base, source) for base, source in codes]

    def truth(self, pairs: int) -> Truth:
        """Of images with another seed than those of the samples."""
        labels = self.scene.sample(8 * pairs, seed=SEED + 1)
        base, source = np.split(labels, 2)
        differ = (base != source)[:, [0, 1, 2, _SHAPE]].all(1)
        base, source = base[differ][:pairs], source[differ][:pairs]
        with torch.no_grad():
            exchanged = torch.stack([self.generator(self.codes(some)) for some in exchanges(base, source)])
        masks = self.scene.masks(labels[: 2 * pairs])
        return Truth(masks, self.codes(base), self.codes(source), self.places(base, source), exchanged)

    def places(self, base: Labels, source: Labels) -> Tensor:
        before, after = (self.scene.masks(labels).movedim(1, 0) for labels in (base, source))
        return torch.stack([before[0] & ~after[2], before[1] & ~after[2], before[2] | after[2]])


def exchanges(base: Labels, source: Labels) -> Iterator[Labels]:
    """The base's factors with each set of FACTORS taken from the source, in the order of the sets' numbers."""
    for chosen in product((False, True), repeat=len(FACTORS)):
        mixed = base.copy()
        for columns, taken in zip(FACTORS.values(), reversed(chosen), strict=True):
            if taken:
                mixed[:, columns] = source[:, columns]
        yield mixed


def factor_names(number: int) -> list[str]:
    """The factors of a set."""
    return [name for j, name in enumerate(FACTORS) if number >> j & 1]


__all__ = ["FACTORS", "LAYERS", "TRAINED", "Decoder", "Truth", "factor_names"]
