"""What one batch of intervened runs is: the clean run it starts from, the edits, and which row is which sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeAlias

from torch import Tensor

from ..generator.latents import Latents

# Sets channels in place on a channels-first view of one layer's activation, one row per hybrid.
Edit = Callable[[Tensor], None]


@dataclass(frozen=True)
class CleanRun:
    """An unintervened run of some samples, with the activations that interventions need."""

    latents: Latents
    images: Tensor  # (samples, C, H, W)
    activations: Mapping[str, Tensor]  # layer -> channels-first copy, (samples, channels, …)
    numbers: Sequence[int]  # which samples of the whole run these are: they fix the noise
    seed: int


Edits: TypeAlias = dict[str, list[Edit]]


class BoundIntervention(Protocol):
    """An intervention with its values for the samples of one block."""

    def changes(self, sample: int) -> list[bool]:
        """For each unit set: does setting it change this sample's run?"""

    def edits(self, samples: Sequence[int], sets: Sequence[int | None]) -> Edits:
        """Edits for a batch: row r is sample ``samples[r]`` with unit set ``sets[r]``, if any."""


class Runs:
    """Intervened runs to make in one batch: row r is sample ``samples[r]`` with unit set ``sets[r]``, if any."""

    def __init__(self, bound: BoundIntervention, samples: Sequence[int], sets: Sequence[int | None]) -> None:
        self.bound, self.samples, self.sets = bound, samples, sets

    def __len__(self) -> int:
        return len(self.samples)

    @cached_property
    def edits(self) -> Edits:
        """What to do to the activations of the layers, in one batch of all rows."""
        return self.bound.edits(self.samples, self.sets)

    def part(self, rows: Sequence[int]) -> Runs:
        """Some of the rows, as a batch of their own."""
        return Runs(self.bound, [self.samples[row] for row in rows], [self.sets[row] for row in rows])
