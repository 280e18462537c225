"""What the explorer shows of a layer: where each channel acts, and the modules by two methods in several numbers."""

from __future__ import annotations

import base64
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from ..base.errors import Interrupted, ProbeError
from ..generator.adapter import GeneratorAdapter
from ..generator.layers import LayerInfo
from ..generator.units import UnitSet
from ..influence.influence_map import InfluenceMap
from ..influence.maps import InfluenceMaps
from ..modules.confidence import ExpectedDisagreement, measure_together
from ..modules.finder import ModuleFinder
from ..registry.naming import Evidence, module_names
from ..registry.regions import Regions

Floats: TypeAlias = npt.NDArray[np.floating[Any]]
Method: TypeAlias = Literal["l2", "bits"]
METHODS: tuple[Method, ...] = ("l2", "bits")
NUMBERS = (2, 3, 4, 5)  # of modules
_BLOCKS, _FEWEST_BLOCKS = 16, 8
_NUMBERS_IN_BLOCKS = 2**25  # of sums over blocks: 128 MiB for each of the two kinds
_MODULE_PAIRS = 32
_SEEN = 0.1  # of the influence of the strongest module


@dataclass(frozen=True)
class Partition:
    """The modules of a layer by one method.

    Attributes:
        names: of its modules, by the part of the image that each shows.
        maps: (height, width) influence of each module that has channels, by its number, as shares of the range.
        confidence: (channels,) of the labels; None if there were too few pairs to measure it.
    """

    finder: ModuleFinder
    names: list[str]
    maps: dict[int, Floats]
    confidence: Floats | None

    def telling_module(self) -> UnitSet:
        """The module to begin with: the most confident of those that show a part of the image and act clearly."""
        labels, influence = self.finder.labels_, {number: float(map_.mean()) for number, map_ in self.maps.items()}
        most = max(influence.values())

        def key(number: int) -> tuple[bool, float]:
            named = not self.names[number].startswith(("module", "all but", "resembles"))
            if not named or influence[number] < _SEEN * most:
                return False, influence[number]
            return True, 0.0 if self.confidence is None else float(self.confidence[labels == number].mean())

        best = max(influence, key=key)
        return self.finder.unit_sets()[best].named(self.names[best])

    def as_json(self) -> dict[str, Any]:
        labels, confidence = self.finder.labels_, self.confidence
        modules = []
        for number, name in enumerate(self.names):
            members = labels == number
            known = confidence is not None and members.any()
            mean = round(float(confidence[members].mean()), 3) if confidence is not None and known else None
            text, peak = quantised(self.maps.get(number, np.zeros((1, 1))))
            modules.append({"name": name, "confidence": mean, "map": text, "peak": peak})
        return {
            "labels": labels.tolist(),
            "confidence": None if confidence is None else _rounded(confidence),
            "expected": None if confidence is None else round(self.finder.expected_ari_, 3),
            "modules": modules,
        }


@dataclass(frozen=True)
class LayerPart:
    """A layer of the explorer.

    Attributes:
        maps: (channels, height, width) influence of each channel, as shares of the image's range.
        errors: (channels,) their relative standard errors.
        partitions: by method, in rising numbers of modules.
    """

    layer: LayerInfo
    maps: Floats
    errors: Floats
    n_pairs: int
    partitions: dict[Method, list[Partition]]

    def partition(self, start: dict[str, Any]) -> Partition | None:
        """The one that a page begins with; None if the layer has none such."""
        several = self.partitions.get(start["method"], [])
        return next((one for one in several if one.finder.n_modules == start["modules"]), None)

    def as_json(self, only: dict[str, Any] | None = None) -> dict[str, Any]:
        """As the page takes it; with ``only`` the partition that a page begins with."""
        partitions: dict[str, list[Partition]] = dict(self.partitions.items())
        if only is not None:
            one = self.partition(only)
            partitions = {} if one is None else {only["method"]: [one]}
        maps = [quantised(one) for one in self.maps]
        return {
            "name": self.layer.name,
            "channels": self.layer.channels,
            "size": list(self.layer.size),
            "pairs": self.n_pairs,
            "mapSize": list(self.maps.shape[1:]),
            "maps": base64.b64encode(b"".join(base64.b64decode(text) for text, _ in maps)).decode(),
            "peaks": [peak for _, peak in maps],
            "errors": _rounded(self.errors),
            "methods": {name: [one.as_json() for one in several] for name, several in partitions.items()},
        }


def layer_part(
    generator: GeneratorAdapter, layer: LayerInfo, regions: Regions, *, n_pairs: int, seed: int, show_progress: bool
) -> LayerPart:
    """Maps of a layer's channels, and its modules."""
    influence = InfluenceMap(generator, layer.name)
    size = map_size(generator.image_size[1:], layer.channels)
    blocks = _blocks(n_pairs, layer.channels, size or generator.image_size[1:])
    span = generator.image_range[1] - generator.image_range[0]
    maps = influence.attribute(
        n_pairs=n_pairs, seed=seed, blocks=blocks, normalise="pair", map_size=size, show_progress=show_progress
    )
    fitted = {method: _fitted(maps, method) for method in METHODS}
    of_modules = _module_maps(influence, [one for several in fitted.values() for one in several], n_pairs, seed, size)
    partitions: dict[Method, list[Partition]] = {}
    for method, several in fitted.items():
        if several:
            partitions[method] = [_partition(one, regions, of_modules, span, blocks is not None) for one in several]
    errors = maps.relative_error.numpy()
    return LayerPart(layer, maps.maps.numpy() / span, errors, int(maps.n_pairs[0]), partitions)


def _partition(
    finder: ModuleFinder, regions: Regions, of_modules: dict[UnitSet, Floats], span: float, measured: bool
) -> Partition:
    confidence = finder.confidence_ if measured else None
    evidence = None
    if confidence is not None:
        kept = [confidence[finder.labels_ == k] for k in range(finder.n_modules)]
        evidence = [Evidence(finder.expected_ari_, float(one.mean()) if len(one) else 0.0) for one in kept]
    names = module_names(finder.templates_, regions.resized(*finder.templates_.shape[1:]), evidence)
    maps = {k: of_modules[units] / span for k, units in enumerate(finder.unit_sets()) if units.size}
    return Partition(finder, names, maps, confidence)


def _module_maps(
    influence: InfluenceMap, finders: Sequence[ModuleFinder], n_pairs: int, seed: int, size: tuple[int, int] | None
) -> dict[UnitSet, Floats]:
    """The influence of each module that any finder found, each measured once."""
    units = list(dict.fromkeys(units for finder in finders for units in finder.unit_sets() if units.size))
    if not units:
        return {}
    maps = influence.attribute(n_pairs=min(n_pairs, _MODULE_PAIRS), seed=seed, units=units, map_size=size)
    return dict(zip(units, maps.maps.numpy(), strict=True))


def map_size(image: Sequence[int], channels: int) -> tuple[int, int] | None:
    """The size that maps are averaged down to: at most 32 pixels a side, 16 for many channels; None: the image's."""
    most = 32 if channels <= 1024 else 16
    height, width = (coarse(side, most) for side in image)
    return None if (height, width) == tuple(image) else (height, width)


def coarse(side: int, most: int = 32) -> int:
    """The largest size of at most so many places that divides a side; the side itself if only small ones do."""
    size = next(size for size in range(min(side, most), 0, -1) if side % size == 0)
    return size if size >= min(8, side) else side


def quantised(values: Floats) -> tuple[str, float]:
    """Bytes of a map, as text, and its largest value, which byte 255 stands for."""
    peak = float(values.max())
    share = values / peak if peak > 0 else np.zeros_like(values)
    return base64.b64encode(np.rint(255 * share).astype(np.uint8).tobytes()).decode(), float(f"{peak:.6g}")


def _blocks(n_pairs: int, channels: int, size: Sequence[int]) -> int | None:
    """In how many blocks pairs are summed, to measure confidence; None if there are too few pairs for that."""
    fitting = _NUMBERS_IN_BLOCKS // (channels * int(np.prod(size)))
    blocks = min(_BLOCKS, n_pairs // 2, max(_FEWEST_BLOCKS, fitting))
    return blocks if blocks >= _FEWEST_BLOCKS else None


def _fitted(maps: InfluenceMaps, method: Method) -> list[ModuleFinder]:
    """A finder for each number of modules that the layer has, their confidence measured together."""
    finders = []
    with warnings.catch_warnings():
        # Both mean that some channels are undecided, and the page says of each channel how sure its module is.
        warnings.simplefilter("ignore", ExpectedDisagreement)
        warnings.filterwarnings("ignore", message="NMF stopped")
        for number in NUMBERS:
            try:
                finders.append(ModuleFinder(number, features=method).fit(maps))
            except ProbeError as error:
                if isinstance(error, Interrupted):
                    raise
                break  # the layer has fewer distinct maps
        if maps.block_sums is not None:
            measure_together(finders)
    return finders


def _rounded(values: Floats) -> list[float | None]:
    """Three digits; None for what is not known."""
    return [round(float(value), 3) if np.isfinite(value) else None for value in values]
