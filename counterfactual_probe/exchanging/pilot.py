"""Where unit sets act, and how much: on pairs that nothing else is measured on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..base.errors import ProbeError, first_few
from ..editing.choice import axis_of
from ..generator import latents as lt
from ..generator.adapter import BASE, NOISE, SOURCE
from ..generator.units import UnitSet, union
from ..hybrids.hybridizer import Hybridizer
from ..influence.influence_map import InfluenceMap
from ..modules.clustering import Array
from .controls import KINDS, Pool
from .regions import region

PAIRS = 32
_ROUNDS = 2  # in which random sets come near to the modules' influence

Groups: TypeAlias = list[list[UnitSet]]


class Pilot:
    """Where unit sets act, and how much, on pairs that nothing else is measured on."""

    def __init__(self, influence: InfluenceMap, modules: Sequence[UnitSet], seed: int, options: dict[str, Any]) -> None:
        self.influence, self.modules, self.seed, self.options = influence, modules, seed, options
        generator = influence.generator
        self.z1, self.z2 = (generator.sample(PAIRS, seed=seed, stream=stream) for stream in (BASE, SOURCE))
        each = influence.space.parse(None)
        self.all_units = union(each)
        self.noise = lt.stream_seed(seed, NOISE, PAIRS) % 2**32  # other noise than that of the measured pairs
        alone = self._maps(each, small=True)[:, 0]
        if not alone.any():
            layers = first_few([info.name for info in influence.layers])
            raise ProbeError(f"no unit of layer {layers} changes the image; choose another layer")
        by_layer: dict[str, list[tuple[int, float]]] = {}
        members = {(layer, number) for module in modules for layer, some in module.items() for number in some}
        for units, value in zip(each, alone, strict=True):
            ((layer, (number,)),) = units.items()
            if value > 0 or (layer, number) in members:
                by_layer.setdefault(layer, []).append((number, float(value)))
        self.pool = Pool(
            {layer: np.array([number for number, _ in some]) for layer, some in by_layer.items()},
            {layer: np.array([value for _, value in some]) for layer, some in by_layer.items()},
            modules,
        )

    def _maps(self, sets: Sequence[UnitSet], *, small: bool = False) -> Array:
        """(sets, pixels) influence; of all pixels together with ``small``."""
        maps = self.influence.attribute(
            self.z1, self.z2, units=list(sets), seed=self.noise, map_size=1 if small else None, **self.options
        )
        values: Array = maps.maps.double().numpy().reshape(len(sets), -1)
        return values

    def deals(self, controls: int) -> tuple[Groups, Groups]:
        """Random sets of equal size, and of equal influence."""
        of_modules = self._maps(self.modules, small=True)[:, 0]
        if dead := [module.name for module, value in zip(self.modules, of_modules, strict=True) if not value > 0]:
            raise ProbeError(f"module {dead[0]!r} changes nothing, in {PAIRS} pairs; leave it out")
        if not controls:
            return [], []
        self.pool.require(controls)
        wanted = np.ones(len(self.modules))
        for _ in range(_ROUNDS):
            dealt = self.pool.deals(controls, KINDS[1], self.seed, wanted)
            influence = self._maps([one for group in dealt for one in group], small=True).reshape(controls, -1)
            # Effects of units that act in one place overlap, so that sums of influences are not those of sets.
            wanted = wanted * of_modules / np.maximum(influence.mean(0), np.finfo(np.float64).tiny)
        last = self.pool.deals(controls, KINDS[1], self.seed, wanted)
        return self.pool.deals(controls, KINDS[0], self.seed), last

    def regions(self, groups: Groups) -> npt.NDArray[np.bool_]:
        """(groups, K, pixels) of each set."""
        maps = self._maps([self.all_units, *(one for group in groups for one in group)])
        return np.stack([region(one, maps[0]) for one in maps[1:]]).reshape(len(groups), len(self.modules), -1)

    def reach(self) -> float:
        """How far all units together bring the image to the source: 1 − Σ|hybrid − source| / Σ|base − source|."""
        layers = [info.name for info in self.influence.layers]
        hybridizer = Hybridizer(self.influence.generator, layers, axis=axis_of(self.all_units))
        made = hybridizer.hybridize(self.z1, self.z2, units=self.all_units, seed=self.noise)
        source = made.base if made.source is None else made.source
        short, apart = ((images - source).double().abs().sum() for images in (made.images[0], made.base))
        return 1 - float(short / apart)
