"""An estimate of influence maps in the making: it advances block by block, and can stop and go on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from ..base.checkpoint import Checkpoint
from ..engine import Stream, Swap
from ..generator.adapter import GeneratorAdapter
from ..generator.units import UnitSet
from .accumulator import RunningMaps
from .components import energy_shares
from .ranks import Meeting, Ranks

STAGE = 16  # pairs between two decisions to stop; fixed, so that batch size and machine change no decision

# Unit sets per rank from which on ranks share the sets, and each holds and adds up the maps of its own alone. With
# fewer the clean runs, which every rank then repeats, and shares that differ by one, cost more: on dcgan-faces, two
# ranks took 1.5 times as long as by pairs with 4 sets each, 1.4 times with 8, and 1.1 times with 16.
FEW_SETS = 8
_CLEAN_RUNS = 2  # of each pair: the base's and the source's
_BLOCK_BYTES = 128 * 2**20  # of maps on their way between ranks


def pairs_are_shared(sets: int, n_pairs: int, ranks: Ranks, tolerance: float | None) -> bool:
    """Whether ranks share the pairs, not the unit sets: when sets are few and the busiest rank then has less to do."""
    if sets >= FEW_SETS * ranks.world:
        return False
    block = n_pairs if tolerance is None else min(n_pairs, STAGE)
    by_pairs = len(ranks.share(block, 0)) * (_CLEAN_RUNS + sets)
    by_sets = block * (_CLEAN_RUNS + len(ranks.dealt(sets, 0)))
    return by_pairs < by_sets


@dataclass(frozen=True)
class Wanted:
    """What an estimate is to hold, beside mean maps and their errors.

    Attributes:
        tolerance: of the relative error at which a unit set stops; None: it sees all pairs.
        normalise: whether pair maps of unit norm are averaged too.
        blocks: in how many blocks pairs are summed up; 0 for none.
        size: (height, width) of the maps, which divide those of the image.
        cell: (height, width) of the pixels that become one of a map's.
        components: the principal components of the changes whose energy is wanted; None for none.
    """

    tolerance: float | None
    normalise: bool
    blocks: int
    size: tuple[int, int]
    cell: tuple[int, int] = (1, 1)
    components: Tensor | None = None

    @property
    def least(self) -> int:
        """Pairs before which no unit set stops: two in every block."""
        return 2 * self.blocks

    def bytes(self, sets: int) -> int:
        """Memory of the block sums of so many unit sets."""
        return sets * self.blocks * (1 + self.normalise) * self.size[0] * self.size[1] * 4


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
        wanted: Wanted,
    ) -> None:
        self.running = RunningMaps(
            len(sets),
            *wanted.size,
            generator.device,
            normalise=wanted.normalise,
            blocks=wanted.blocks,
            components=None if wanted.components is None else wanted.components.to(generator.device),
        )
        self.stream = stream
        self.wanted = wanted
        self.position = 0
        self.precision = ""
        self._sets = sets
        self._active = list(range(len(sets)))

    @property
    def done(self) -> bool:
        return self.position >= self.stream.pairs.n or not self._active

    def advance(self) -> None:
        """Run the next block of pairs for the active sets, and stop those that are precise enough."""
        n = self.stream.pairs.n
        end = min(n, self.position + self._block())
        if self.wanted.tolerance is not None:
            end = min(end, self.position - self.position % STAGE + STAGE)
        self._run(end)
        self.position = end
        tolerance = self.wanted.tolerance
        if tolerance is not None and end % STAGE == 0 and self.wanted.least <= end < n:
            going_on = [chosen for chosen in self._active if self.running.relative_error(chosen) > tolerance]
            self._go_on_with(going_on)

    def _block(self) -> int:
        """The most pairs of a block."""
        return self.stream.hybrids_per_eval

    def _run(self, end: int) -> None:
        for pair, sets, maps, energy in self._maps(self.position, end):
            self.running.add(pair, [self._active[chosen] for chosen in sets], maps, energy)

    def _maps(self, start: int, end: int) -> Iterator[tuple[int, list[int], Tensor, Tensor | None]]:
        """Pair, places among the active sets, their maps, and the energy of their changes if it is wanted."""
        components, cell = self.running.components, self.wanted.cell
        for effect in self.stream.run(start, end):
            maps = effect.maps()
            self.precision = self.stream.executor.rounding or str(maps.dtype).removeprefix("torch.")
            if cell != (1, 1):
                maps = avg_pool2d(maps, cell)
            energy = None if components is None else energy_shares(effect, components, cell)
            yield effect.pair, effect.sets, maps, energy

    @property
    def total(self) -> int:
        """Hybrids of all pairs and sets."""
        return self.stream.pairs.n * len(self._sets)

    @property
    def settled(self) -> int:
        """Hybrids that need no more work, of pairs × sets."""
        return self.total - (self.stream.pairs.n - self.position) * len(self._active)

    def resume(self, file: Checkpoint | None) -> None:
        """Go on from where the file left it, if there is one."""
        if file is not None and (found := file.load()) is not None:
            self.restore(*found)

    def keep(self, file: Checkpoint) -> None:
        """Write the progress, once in a while and at the end."""
        if file.due or self.done:
            file.save(*self.state())

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


class SharedEstimate(Estimate):
    """An estimate of which each rank runs its share of every block of pairs.

    All ranks get the maps of the whole block and add them in the order of the pairs. So all hold the
    same state, decide the same, and end with what one rank would, up to the rounding of batches. Rank
    0 alone keeps it in a file, and gives it to the others when the run is taken up again.
    """

    def __init__(
        self,
        generator: GeneratorAdapter,
        sets: Sequence[UnitSet],
        stream: Stream,
        meeting: Meeting,
        wanted: Wanted,
    ) -> None:
        super().__init__(generator, sets, stream, wanted)
        self._meeting = meeting
        self._device = generator.device
        self._size = wanted.size
        # No narrower than the running maps, so that nothing is lost on the way.
        self._dtype = torch.promote_types(generator.dtype or torch.float64, torch.float32)
        pair_bytes = len(sets) * self._size[0] * self._size[1] * self._dtype.itemsize
        room = max(1, _BLOCK_BYTES // (pair_bytes * meeting.ranks.world))
        # Enough for whole batches. Rank 0's and fixed, because ranks that halve their batches must stay in step.
        each = min(room, max(STAGE, stream.hybrids_per_eval // len(sets)))
        self._block_pairs: int = meeting.from_first(each * meeting.ranks.world)

    def _block(self) -> int:
        return self._block_pairs

    def _run(self, end: int) -> None:
        ranks, start = self._meeting.ranks, self.position
        own = ranks.share(end - start)

        def room(*size: int) -> Tensor:
            shape = (end - start, len(self._active), *size)
            return torch.zeros(shape, dtype=self._dtype, device=ranks.place(self._device))

        components = self.running.components
        found, shares = room(*self._size), None if components is None else room(len(components))
        for pair, sets, maps, energy in self._maps(start + own.start, start + own.stop):
            found[pair - start, sets] = maps.to(found)
            if shares is not None and energy is not None:
                shares[pair - start, sets] = energy.to(shares)
        self._meeting.complete(found)
        if shares is not None:
            self._meeting.complete(shares)
        for place, maps in enumerate(found):
            energy = None if shares is None else shares[place].to(self._device)
            self.running.add(start + place, self._active, maps.to(self._device), energy)

    def resume(self, file: Checkpoint | None) -> None:
        # Also without a file here: the others may have been given none, and wait.
        found = file.load() if file is not None and self._meeting.ranks.rank == 0 else None
        if (found := self._meeting.from_first(found)) is not None:
            self.restore(*found)

    def keep(self, file: Checkpoint) -> None:
        if self._meeting.ranks.rank == 0:
            super().keep(file)
