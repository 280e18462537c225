"""A request for influence maps, checked before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d, avg_pool2d, avg_pool3d

from ..base.errors import ProbeError, brief, whole
from ..base.memory import free_memory, free_on_disk, in_words
from ..engine import Pairs, Swap
from ..engine.pairs import given_pairs
from ..generator import latents as lt
from ..generator.adapter import BASE, SOURCE, GeneratorAdapter
from ..generator.latents import Latents
from ..generator.results import units_to_json
from ..generator.units import Extent, Space, UnitSet
from .arrays import Components

DEFAULT_PAIRS = 256


@dataclass(frozen=True, kw_only=True)
class MapOptions:
    """What maps hold besides means and standard errors.

    Attributes:
        tolerance: the relative error at which a unit set stops; None: it sees all pairs.
        normalise: whether pair maps of unit norm are averaged too.
        blocks: in how many blocks pairs are summed up; 0 for none.
        size: (height, width) of the maps, or as many numbers as the output has, which divide those of the image.
        cell: (height, width) of the image's pixels that make one of a map's.
        components: how many principal components of the changes, or those of earlier maps; None for none.
    """

    tolerance: float | None
    normalise: bool
    blocks: int
    size: tuple[int, ...]
    cell: tuple[int, ...]
    components: int | Components | None

    @property
    def least_pairs(self) -> int:
        """Pairs before which no unit set stops: two in every block."""
        return 2 * self.blocks

    def bytes_of(self, sets: int) -> int:
        """What the maps of so many unit sets take, with standard errors and the sums of blocks."""
        return sets * (1 + self.normalise + self.blocks * (1 + self.normalise) + 1) * prod(self.size) * 4

    def require_room(self, sets: int, device: torch.device, file: Path | None) -> None:
        """Raise a ProbeError, before anything runs, if the maps of so many unit sets do not fit into memory, or onto
        the disk of the file that keeps their progress."""
        for place in {device, torch.device("cpu")}:  # where they are in the end
            self._require_fitting(sets, 1, free_memory(place), f"in the memory of device '{place}'")
        if file is not None:  # the old file stays until the new one is whole
            self._require_fitting(sets, 2, free_on_disk(file.parent), f"in {str(file.parent)!r} for a checkpoint")

    def _require_fitting(self, sets: int, copies: int, free: int | None, where: str) -> None:
        """``free`` and ``where``: the bytes that there are, or None where nobody says, and of what."""
        needed = copies * self.bytes_of(sets)
        if free is None or needed <= free:
            return
        fitting = [
            tuple(side // step for side in self.size)
            for step in range(2, self.size[0] + 1)
            if all(side % step == 0 for side in self.size) and needed / step ** len(self.size) <= free
        ]
        cure = f"map_size={fitting[0]} fits" if fitting else "give fewer channels or blocks"
        blocks = f" and the sums of {self.blocks} blocks" if self.blocks else ""
        raise ProbeError(
            f"maps{blocks} for {sets} unit sets, of {'×'.join(map(str, self.size))}, take {in_words(needed)}"
            f"{' in two versions' if copies > 1 else ''}, and {in_words(free)} are free {where}; {cure}"
        )


@dataclass(frozen=True, kw_only=True)
class MapRequest:
    """A call of :meth:`InfluenceMap.attribute`.

    Attributes:
        latents: base and source as given; both None where pairs are sampled.
    """

    generator: GeneratorAdapter
    space: Space
    sets: Sequence[UnitSet]
    extent: Extent
    pairs: Pairs
    latents: tuple[Latents | None, Latents | None]
    seed: int
    options: MapOptions
    precision: str
    hybrids_per_eval: int | None

    def swap(self, sets: Sequence[UnitSet]) -> Swap:
        """The intervention on some of the unit sets."""
        return Swap(*self.space.in_run(sets), self.extent.by_call(self.space))

    @property
    def sampled(self) -> bool:
        """Whether pairs are sampled here, not given."""
        return self.latents[0] is None

    def digests(self) -> dict[str, list[str]]:
        """Of the pairs that were given, for those who pool maps: nothing where the seed tells them."""
        base, source = self.latents
        if base is None or source is None:
            return {}
        return {"pair_digests": lt.pair_digests(base, source)}

    def identity(self, about: dict[str, Any]) -> dict[str, Any]:
        """Everything that determines the bits of a run's result; a checkpoint of any other run is refused."""
        options, components = self.options, self.options.components
        return {
            **{key: value for key, value in about.items() if key != "versions"},
            **about["versions"],
            "units": units_to_json(self.sets),
            **self.space.provenance(),
            **self.space.bases(),
            **self.extent.about,
            "seed": self.seed,
            "n_pairs": self.pairs.n,
            "first latents": lt.fingerprint(self.generator.example),  # of whatever draws them
            "latents": [None if latents is None else lt.fingerprint(latents) for latents in self.latents],
            "hybrids_per_eval": self.hybrids_per_eval,
            "tolerance": options.tolerance,
            "normalise": "pair" if options.normalise else None,
            "requested precision": self.precision,
            "blocks": options.blocks or None,
            "map_size": list(options.size),
            "components": _fingerprint(components) if isinstance(components, Components) else components,
        }


def map_options(
    image: tuple[int, ...],
    n_pairs: int,
    *,
    tolerance: Any,
    normalise: Any,
    blocks: Any,
    map_size: Any,
    components: Any,
) -> MapOptions:
    """The options of maps of images (C, H, W) over so many pairs, checked."""
    if not (normalise is None or (isinstance(normalise, str) and normalise == "pair")):
        raise ProbeError(f"normalise is {brief(normalise)}; give 'pair' or None")
    _require_tolerance(tolerance)
    number = 0 if blocks is None else whole(blocks, "blocks", 2)
    if n_pairs < 2 * number:
        raise ProbeError(
            f"{n_pairs} pairs are given for {number} blocks; a block needs two, so give n_pairs={2 * number} or "
            f"more, or fewer blocks"
        )
    size = _checked_map_size(map_size, image[1:])
    cell = tuple(side // kept for side, kept in zip(image[1:], size, strict=True))
    return MapOptions(
        tolerance=tolerance,
        normalise=normalise == "pair",
        blocks=number,
        size=size,
        cell=cell,
        components=_checked_components(components, (image[0], *size)),
    )


def latent_pairs(
    generator: GeneratorAdapter, z1: Latents | None, z2: Latents | None, n_pairs: int | None, seed: int
) -> Pairs:
    """Zipped pairs of given latents, or ``n_pairs`` that are sampled block by block."""
    if z1 is None and z2 is None:
        return Pairs(
            DEFAULT_PAIRS if n_pairs is None else whole(n_pairs, "n_pairs", 1),
            lambda start, stop: generator.sample(stop - start, seed=seed, stream=BASE, start=start),
            lambda start, stop: generator.sample(stop - start, seed=seed, stream=SOURCE, start=start),
        )
    if n_pairs is not None:
        raise ProbeError(f"latents are given and n_pairs={n_pairs} too; give one or the other")
    return given_pairs(generator, z1, z2)


def _require_tolerance(tolerance: Any) -> None:
    if tolerance is not None and not (isinstance(tolerance, (int, float, np.floating)) and tolerance > 0):
        raise ProbeError(f"tolerance is {tolerance!r}; give a number above 0, such as 0.1, or None")


def averaged(values: Tensor, cell: tuple[int, ...]) -> Tensor:
    """Means over cells of the last dimensions."""
    if all(side == 1 for side in cell):
        return values
    if len(cell) == 2:
        return avg_pool2d(values, cell)
    return (avg_pool1d if len(cell) == 1 else avg_pool3d)(values, cell)


def _checked_map_size(given: Any, image: tuple[int, ...]) -> tuple[int, ...]:
    """(height, width) of the maps: the image's, or one that divides it."""
    if given is None:
        return image
    sides = given if isinstance(given, (tuple, list)) and len(given) == len(image) else [given] * len(image)
    size = tuple(whole(side, "map_size", 1) for side in sides)
    if any(side % kept for side, kept in zip(image, size, strict=True)):
        raise ProbeError(
            f"map_size is {size} and images are {'×'.join(map(str, image))}; give a size that divides them, such as "
            f"{tuple(side // 2 if side % 2 == 0 else side for side in image)}"
        )
    return size


def _fingerprint(components: Components) -> str:
    return lt.fingerprint({name: value for name, value in components._asdict().items() if value is not None})


def _checked_components(given: Any, size: tuple[int, ...]) -> int | Components | None:
    """How many components, or those of earlier maps, for changes (C, h, w)."""
    if given is None:
        return None
    if isinstance(given, Tensor):
        given = Components(given)
    if not isinstance(given, Components):
        return whole(given, "components", 1)
    if tuple(given.leading.shape[1:]) != size:
        raise ProbeError(
            f"the components have shape {tuple(given.leading.shape)} and changes are {size}; give the .components of "
            "maps of this generator and map_size, or a number"
        )
    return Components(given.leading.float(), given.resampled)
