"""What an explorer's page shows, as JSON: samples, layers, parts of the image, and what it starts with."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..base.errors import ProbeError, required
from ..base.files import safe_name
from ..generator.adapter import GeneratorAdapter
from ..generator.images import require_pictures
from ..generator.latents import Latents
from ..modules.confidence import ENOUGH
from ..registry.pretrained import available
from ..registry.regions import Regions
from ..version import __version__
from .images import picture
from .layer import LayerPart, Partition, coarse
from .portable.program import PortableProgram
from .precomputed import LARGEST, precomputed

SHOWN, POOL = 16, 64  # samples in the strip, and to shuffle from if the page computes their images itself
SHOWN_ALONE = 6  # samples of a file that holds pictures of their hybrids
LARGEST_PICTURE = 128  # pixels of a side
_INPUTS = 2**18  # numbers that all samples' inputs may take: 1 MiB


@dataclass(frozen=True)
class Contents:
    """Everything that the pages of all hosts show, whoever computes.

    Attributes:
        program: what a page computes with; None if it cannot.
        why: the reason, if it cannot.
        missing: layers that would be shown by default, if their maps took less time.
    """

    generator: GeneratorAdapter
    parts: Sequence[LayerPart]
    regions: Regions
    seed: int
    program: PortableProgram | None
    why: str = ""
    missing: Sequence[str] = ()

    def latents(self, sample: int) -> Latents:
        """Of a sample of the strip; maps are made with samples of another seed."""
        return self.generator.sample(1, seed=self.seed, start=sample)

    @property
    def pool(self) -> int:
        """How many samples there are to choose from, in a page that computes."""
        if self.program is None:
            return SHOWN_ALONE
        numbers = sum(int(np.prod(shape)) for _, shape in self.program.inputs)
        return max(SHOWN, min(POOL, _INPUTS // max(1, numbers)))

    def for_file(self) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """Contents and program of a page that stands alone: with the generator, or with pictures in its place."""
        if self.program is not None:
            program = self.program.as_json([self.latents(sample) for sample in range(self.pool)])
            return self.as_json(self.pool, SHOWN, live=True), program
        made = self.as_json(SHOWN_ALONE, SHOWN_ALONE, live=False)
        first = [one for part in self.parts if (one := part.partition(made["start"]))]
        return made | {"precomputed": precomputed(self.generator, first, self.latents, SHOWN_ALONE)}, None

    def live_json(self, count: int) -> dict[str, Any]:
        """What a page shows whose images Python computes."""
        return self.as_json(count, SHOWN, live=True)

    def as_json(self, count: int, shown: int, *, live: bool) -> dict[str, Any]:
        """What the page shows, with so many samples of which so many in the strip; ``live`` if hybrids are computed."""
        generator = self.generator
        size = require_pictures(generator.image_size, "the explorer")
        grid, start = [coarse(side) for side in size[1:]], self._start()
        return {
            "name": generator.name,
            "file": safe_name(generator.name),
            "registered": generator.name in available(),
            "size": list(size),
            "range": list(generator.image_range),
            "grid": grid,
            "samples": {
                "seed": self.seed,
                "count": count,
                "shown": shown,
                "pictures": self._shown(shown, lossless=not live),
            },
            "layers": [part.as_json(None if live else start) for part in self.parts],
            "regions": _region_bits(self.regions, grid),
            "start": start,
            "live": live,
            "why": self._limits() if not live else "",
            "about": self._about(),
        }

    def _shown(self, shown: int, *, lossless: bool) -> list[str]:
        """The samples of the strip. A page that computes shows these only until it has computed its own."""
        images = [self.generator(self.latents(sample))[0] for sample in range(shown)]
        return [picture(one, self.generator.image_range, LARGEST_PICTURE, lossless=lossless) for one in images]

    def beginning(self) -> tuple[LayerPart, Partition | None]:
        """The layer that the registry names, or whose modules are the most reproducible; three of these, or the number
        nearest to three that is reproducible."""
        best = max(self.parts, key=lambda part: (part.layer.name == self.regions.layer, _expected(part)))
        several = best.partitions.get("l2") or best.partitions.get("bits") or []
        sure = [one for one in several if one.confidence is not None and one.finder.expected_ari_ >= ENOUGH]
        return best, min(sure or several, key=lambda one: abs(one.finder.n_modules - 3), default=None)

    def _start(self) -> dict[str, Any]:
        """What the page begins with."""
        part, partition = self.beginning()
        made: dict[str, Any] = {"layer": part.layer.name, "method": "", "modules": 0, "units": {}}
        if partition is None:
            return made
        units = {layer: list(channels) for layer, channels in partition.telling_module().items()}
        return made | {"method": partition.finder.features, "modules": partition.finder.n_modules, "units": units}

    def _limits(self) -> str:
        scaled = f", in pictures of at most {LARGEST} pixels" if max(self.generator.image_size[1:]) > LARGEST else ""
        return (
            f"This file holds pictures and not the generator: {self.why}. It shows {SHOWN_ALONE} samples, each module "
            f"set alone and wholly{scaled}; regions show where modules and channels act. In Python, cp.explore(gen) "
            "computes the same page live, for any choice."
        )

    def _about(self) -> str:
        pairs = {part.n_pairs for part in self.parts}
        missing = ""
        if self.missing:
            missing = f"Not shown by default, as maps of it take long: {', '.join(self.missing)}; name it in layers=. "
        return (
            f"{self.generator.name}, {'×'.join(map(str, self.generator.image_size))}. Maps of "
            f"{' or '.join(map(str, sorted(pairs)))} pairs; amounts are mean changes over pixels and colours, "
            "as shares of the image's range. Confidence: how often another sample of latents would put a channel into "
            f"the same module. {missing}Made with counterfactual-probe {__version__}; weights "
            f"{self.generator.weights_hash()[:12]}."
        )


def require_colours(generator: GeneratorAdapter) -> None:
    """Raise a ProbeError for what a page cannot show."""
    required(generator, GeneratorAdapter, "generator", "give what wrap or load returns")
    channels, *_ = require_pictures(generator.image_size, "the explorer")
    if channels not in (1, 3):
        raise ProbeError(
            f"the explorer shows images of 1 or 3 channels and those of {generator.name} have {channels}; give image=, "
            "a function that reads such an image off the output, to cp.wrap"
        )


def _expected(part: LayerPart) -> float:
    """The expected agreement of the layer's three modules, or of as many as it has."""
    known = [one for several in part.partitions.values() for one in several if one.confidence is not None]
    return max((one.finder.expected_ari_ for one in known if one.finder.n_modules <= 3), default=0.0)


def _region_bits(regions: Regions, grid: Sequence[int]) -> list[dict[str, str]]:
    """The parts of the image that have a name, on the page's grid, row by row in bits."""
    found = []
    for name, mask in regions.masks.items():
        given = torch.from_numpy(np.asarray(mask, np.float64))[None]
        values = torch.nn.functional.adaptive_avg_pool2d(given, (grid[0], grid[1]))[0].numpy() >= 0.5
        if values.any() and not values.all():
            found.append({"name": name, "bits": base64.b64encode(np.packbits(values).tobytes()).decode()})
    return found
