"""Random sets of units to compare modules with: of as many units, or of as much influence, dealt like cards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb
from typing import Literal, TypeAlias, get_args

import numpy as np

from ..base.display.text import counted
from ..base.errors import ProbeError
from ..generator.units import UnitSet
from ..modules.clustering import Array, Labels

Kind: TypeAlias = Literal["equal size", "equal influence"]
KINDS: tuple[Kind, ...] = get_args(Kind)
DEFAULT_CONTROLS = 99
_TRIES = 100  # to deal every module at least one unit


@dataclass(frozen=True)
class Pool:
    """What random sets are made of: the units of the modules' layers that change anything, and those of the modules.

    Attributes:
        units: by layer, their numbers.
        influence: by layer, that of each alone.
        modules: which are compared; no two have a unit in common.
    """

    units: Mapping[str, Labels]
    influence: Mapping[str, Array]
    modules: Sequence[UnitSet]

    def deals(self, controls: int, kind: Kind, seed: int, influences: Array | None = None) -> list[list[UnitSet]]:
        """So many times a random set for each module, no two of which share a unit: in every layer of as many units as
        the module, or of as much influence (the sum of its units' own, times its entry in ``influences``)."""
        rng = np.random.default_rng([seed, KINDS.index(kind), controls])
        return [self._deal(kind, rng, influences) for _ in range(controls)]

    def require(self, controls: int) -> None:
        """Raise a ProbeError if fewer different sets than that can be dealt."""
        ways = 1
        for layer, numbers in self.units.items():
            left = len(numbers)
            for module in self.modules:
                size = len(module.get(layer, ()))
                ways *= comb(left, size)
                left -= size
        if ways <= controls:
            total = sum(map(len, self.units.values()))
            kind = self.modules[0].kind
            raise ProbeError(
                f"{counted(controls, 'random set')} are asked for and of {counted(total, kind)} that change anything "
                f"only {ways - 1} others of the modules' sizes can be made; give controls={ways - 1} or fewer, or "
                "smaller modules"
            )

    def _deal(self, kind: Kind, rng: np.random.Generator, influences: Array | None) -> list[UnitSet]:
        dealt: list[dict[str, tuple[int, ...]]] = [{} for _ in self.modules]
        for layer in self.units:
            for place, numbers in enumerate(self._of_layer(layer, kind, rng, influences)):
                if len(numbers):
                    dealt[place][layer] = tuple(sorted(numbers.tolist()))
        kinds = [module.kind for module in self.modules]
        return [UnitSet(units, kind=of) for units, of in zip(dealt, kinds, strict=True)]

    def _of_layer(self, layer: str, kind: Kind, rng: np.random.Generator, influences: Array | None) -> list[Labels]:
        """The numbers of the layer's units that each module is dealt."""
        numbers, influence = self.units[layer], self.influence[layer]
        members = [np.isin(numbers, module.get(layer, ())) for module in self.modules]
        sizes = np.array([int(one.sum()) for one in members])
        if kind == "equal size":
            return np.split(rng.permutation(numbers)[: sizes.sum()], np.cumsum(sizes)[:-1])
        wanted = np.array([influence[one].sum() for one in members]) * (1.0 if influences is None else influences)
        for _ in range(_TRIES):
            order, turn = rng.permutation(len(numbers)), rng.permutation(len(members))
            owner = _owners(influence[order], wanted[turn])
            hands = [numbers[order[owner == place]] for place in np.argsort(turn)]
            if all(len(hand) for hand, size in zip(hands, sizes, strict=True) if size):
                return hands
        # A few units have nearly all influence: as many as the module has are the best that there is.
        return np.split(rng.permutation(numbers)[: sizes.sum()], np.cumsum(sizes)[:-1])


def _owners(influence: Array, wanted: Array) -> Labels:
    """Whose each unit is, if units are dealt in this order until each module has the influence that it wants; the
    number of modules for those that are left."""
    middle = np.cumsum(influence) - influence / 2
    return np.searchsorted(np.cumsum(wanted), middle, side="right")
