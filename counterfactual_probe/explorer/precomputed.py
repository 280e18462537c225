"""Pictures of hybrids, for a file that does not carry its generator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import permutations
from typing import Any

from ..generator.adapter import GeneratorAdapter
from ..generator.latents import Latents
from ..hybrids.hybridizer import Hybridizer
from .images import picture
from .layer import Partition

LARGEST = 128  # pixels of a side


def precomputed(
    generator: GeneratorAdapter, partitions: Sequence[Partition], latents: Callable[[int], Latents], samples: int
) -> list[dict[str, Any]]:
    """For each ordered pair of samples, and each module, the hybrid with the module wholly set, as a picture."""
    made: list[dict[str, Any]] = []
    for partition in partitions:
        sets = [units for units in partition.finder.unit_sets() if units.size]
        for base, source in permutations(range(samples), 2):
            (layer,) = sets[0]
            hybrids = Hybridizer(generator, layer).hybridize(latents(base), latents(source), units=sets)
            for units, image in zip(sets, hybrids.images[:, 0], strict=True):
                about = {"layer": layer, "channels": list(units[layer]), "base": base, "source": source}
                made.append({**about, "picture": picture(image, generator.image_range, LARGEST, lossless=True)})
    return made
