"""An estimate of influence maps in the making: it advances block by block, and can stop and go on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from .engine import Stream, Swap
from .generator import GeneratorAdapter
from .running import RunningMaps
from .units import UnitSet

STAGE = 16  # pairs between two decisions to stop; fixed, so that batch size and machine change no decision


class Estimate:
    """Running maps of unit sets, the pairs they have seen, and the sets that still go on.

    ``advance`` runs one block of pairs inside ``generator.session()``. Between blocks,
    ``state`` holds all that is needed to ``restore`` the estimate and end with the same bits.
    """

    def __init__(
        self,
        generator: GeneratorAdapter,
        sets: Sequence[UnitSet],
        stream: Stream,
        *,
        tolerance: float | None,
        normalise: bool,
    ) -> None:
        height, width = generator.image_size[1:]
        self.running = RunningMaps(len(sets), height, width, generator.device, normalise=normalise)
        self.stream = stream
        self.position = 0
        self.precision = ""
        self._sets = sets
        self._active = list(range(len(sets)))
        self._tolerance = tolerance

    @property
    def done(self) -> bool:
        return self.position >= self.stream.pairs.n or not self._active

    def advance(self) -> None:
        """Run the next block of pairs for the active sets, and stop those that are precise enough."""
        n = self.stream.pairs.n
        end = min(n, self.position + self.stream.hybrids_per_eval)
        if self._tolerance is not None:
            end = min(end, self.position - self.position % STAGE + STAGE)
        for effect in self.stream.run(self.position, end):
            maps = effect.maps()
            self.precision = self.stream.executor.rounding or str(maps.dtype).removeprefix("torch.")
            self.running.add(effect.pair, [self._active[chosen] for chosen in effect.sets], maps)
        self.position = end
        if self._tolerance is not None and end % STAGE == 0 and end < n:
            going_on = [chosen for chosen in self._active if self.running.relative_error(chosen) > self._tolerance]
            self._go_on_with(going_on)

    @property
    def total(self) -> int:
        """Hybrids of all pairs and sets."""
        return self.stream.pairs.n * len(self._sets)

    @property
    def settled(self) -> int:
        """Hybrids that need no more work, of pairs × sets."""
        return self.total - (self.stream.pairs.n - self.position) * len(self._active)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        progress = {
            "position": self.position,
            "active": self._active,
            "hybrids_per_eval": self.stream.hybrids_per_eval,
            "precision": self.precision,
        }
        return self.running.state(), progress

    def restore(self, tensors: dict[str, Tensor], progress: dict[str, Any]) -> None:
        self.running.restore(tensors)
        self.position = progress["position"]
        self.precision = progress["precision"]
        self.stream.hybrids_per_eval = progress["hybrids_per_eval"]
        self._go_on_with(progress["active"])

    def _go_on_with(self, active: list[int]) -> None:
        self._active = active
        self.stream.intervention = Swap([self._sets[chosen] for chosen in active])
