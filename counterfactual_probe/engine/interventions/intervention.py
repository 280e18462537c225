"""What an intervention is, and the layers that it sets.

A bound intervention says which unit sets change anything for a sample at all. One that changes
nothing is not run: its image is the original, exactly (the consistency axiom of counterfactuals),
and not the original plus the rounding of another batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from ...generator.units import UnitSet
from ...generator.units.axis import Coordinates
from ..runs import BoundIntervention, CleanRun


class Intervention(Protocol):
    """What is set where. Binds to the clean runs of one block of samples at a time."""

    sets: Sequence[UnitSet]

    @property
    def layers(self) -> list[str]: ...

    @property
    def coordinates(self) -> Mapping[str, Coordinates]:
        """How the units of layers are told apart; they are channels in a layer that is not here."""

    @property
    def taken_from(self) -> Mapping[str, str]:
        """The layers of the source whose values others take; a layer that is not here takes its own."""

    def bind(self, base: CleanRun, source: CleanRun | None) -> BoundIntervention: ...


def layers_of(sets: Sequence[UnitSet]) -> list[str]:
    """The layers in which any of the sets has units."""
    return list(dict.fromkeys(layer for units in sets for layer, numbers in units.items() if numbers))


def path_of(units: UnitSet) -> frozenset[str]:
    """The layers in which a unit set has units: where its hybrids depart from the clean run."""
    return frozenset([layer for layer, numbers in units.channels.items() if numbers])
