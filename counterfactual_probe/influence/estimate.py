"""An estimate of influence maps in progress: it advances block by block, and can be interrupted and resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from ..base.checkpoint import Checkpoint
from ..distributed.exchange import Exchange
from ..distributed.ranks import Ranks
from ..engine import Stream, Swap
from .accumulator import MapAccumulator
from .arrays import SHARED, Components, MapArrays
from .components import energy_shares
from .progress.files import ProgressFile
from .progress.furthest import Furthest
from .request import MapOptions, averaged

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


class Estimate:
    """Accumulated maps of unit sets, how many pairs they have seen, and which sets are still active.

    ``advance`` runs one block of pairs inside ``generator.session()``. Between blocks,
    ``state`` holds all that is needed to ``restore`` the estimate and end with the same bits.
    """

    def __init__(self, stream: Stream, swap: Swap, options: MapOptions, components: Components | None) -> None:
        self.stream, self.options, self._swap = stream, options, swap
        self._sets = swap.sets
        device = stream.generator.device
        self.accumulator = MapAccumulator(
            MapArrays.zeros(
                len(self._sets),
                options.size,
                device,
                normalise=options.normalise,
                blocks=options.blocks,
                components=components,
            )
        )
        self.position = 0
        self.precision = ""
        self._active = list(range(len(self._sets)))
        self._ahead: dict[int, int] = {}  # sets that an earlier run on other ranks has brought further, and how far

    @property
    def done(self) -> bool:
        return self.position >= self.stream.pairs.n or not (self._active or self._ahead)

    def advance(self, ran: Callable[[int], object] = lambda _: None) -> None:
        """Run the next block of pairs for the active sets, and stop those that are precise enough.

        ``ran`` is called after every batch of hybrids, because a block may take minutes.
        """
        n = self.stream.pairs.n
        tolerance = self.options.tolerance
        if self._active:
            end = min(n, self.position + self._block(), *self._ahead.values())
            if tolerance is not None:
                end = min(end, self.position - self.position % STAGE + STAGE)
            self._run(end, ran)
        else:
            end = min(self._ahead.values())
        self.position = end
        active = self._active
        if tolerance is not None and end % STAGE == 0 and self.options.least_pairs <= end < n:
            errors = self.accumulator.relative_errors(active)
            active = [k for k, error in zip(active, errors, strict=True) if error > tolerance]
        joining = [k for k, place in self._ahead.items() if place == end]
        for k in joining:  # whether they go on has been decided where they were
            del self._ahead[k]
        if joining or active != self._active:
            self._continue_with(sorted([*active, *joining]))

    def _block(self) -> int:
        """The largest number of pairs in a block."""
        return self.stream.hybrids_per_eval

    def _run(self, end: int, ran: Callable[[int], object]) -> None:
        for pair, sets, maps, energy in self._maps(self.position, end):
            self.accumulator.add(pair, [self._active[chosen] for chosen in sets], maps, energy)
            ran(len(sets))

    def _maps(self, start: int, end: int) -> Iterator[tuple[int, list[int], Tensor, Tensor | None]]:
        """Pair, indices among the active sets, their maps and, with components, the energy of their changes."""
        given, cell = self.accumulator.arrays.all_components, self.options.cell
        components = None if given is None else given.stacked
        for effect in self.stream.run(start, end):
            maps = effect.maps()
            self.precision = self.stream.executor.rounding or str(maps.dtype).removeprefix("torch.")
            maps = averaged(maps, cell)
            energy = None if components is None else energy_shares(effect, components, cell)
            yield effect.pair, effect.sets, maps, energy

    @property
    def total(self) -> int:
        """Hybrids of all pairs and sets."""
        return self.stream.pairs.n * len(self._sets)

    @property
    def settled(self) -> int:
        """Hybrids that are done or no longer needed, of pairs × sets."""
        n = self.stream.pairs.n
        return self.total - (n - self.position) * len(self._active) - sum(n - place for place in self._ahead.values())

    def resume(self, file: ProgressFile | None, left: Sequence[ProgressFile] = ()) -> None:
        """Resume from the file, if there is one, or from those that a run on another number of ranks has ``left``:
        every unit set from where it has come furthest."""
        if file is not None and (state := self._kept(file, left)) is not None:
            self.restore(*state)

    def _kept(
        self, file: ProgressFile, left: Sequence[ProgressFile]
    ) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """What files hold of this estimate."""
        if not left:
            return self._fitting(file)
        furthest = Furthest(file.sets, self.stream.pairs.n, self.accumulator.arrays.state())
        for one in (file, *left):
            if (state := self._fitting(one)) is not None:
                furthest.add(one.sets, *state)
        return furthest.state()

    def _fitting(self, file: ProgressFile) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """What a file holds, if there is one; a ProbeError if it cannot be of this run."""
        if (state := file.checkpoint.load()) is not None:
            self.require_fitting(file, *state)
        return state

    def keep(self, file: Checkpoint) -> None:
        """Write the progress, at intervals and at the end."""
        if file.due or self.done:
            file.save(*self.state())

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        progress = {
            "position": self.position,
            "active": self._active,
            "hybrids_per_eval": self.stream.hybrids_per_eval,
            "precision": self.precision,
        }
        if self._ahead:
            progress["ahead"] = [list(item) for item in self._ahead.items()]
        return self.accumulator.arrays.state(), progress

    def require_fitting(self, file: ProgressFile, tensors: dict[str, Tensor], progress: dict[str, Any]) -> None:
        """Raise a ProbeError if no such estimate can have got there, whatever the file's digest says."""
        own = {name: (value.shape, value.dtype) for name, value in self.accumulator.arrays.state().items()}
        rows = len(file.sets)
        known = {
            name: (shape if name in SHARED else torch.Size([rows, *shape[1:]]), dtype)
            for name, (shape, dtype) in own.items()
        }
        if known != {name: (value.shape, value.dtype) for name, value in tensors.items()}:
            raise file.checkpoint.damaged("its arrays are not those of this run")
        position, active, batch = (progress.get(key) for key in ("position", "active", "hybrids_per_eval"))
        n, ahead = self.stream.pairs.n, progress.get("ahead", [])
        if (
            not isinstance(position, int)
            or not 0 <= position <= n
            or not isinstance(active, list)
            or active != [chosen for chosen in range(rows) if chosen in active]
            or not _are_ahead(ahead, [chosen for chosen in range(rows) if chosen not in active], position, n)
            or not isinstance(batch, int)
            or batch < 1
            or not isinstance(progress.get("precision"), str)
        ):
            raise file.checkpoint.damaged(f"it is at pair {position!r:.20} of {n}, in batches of {batch!r:.20}")

    def restore(self, tensors: dict[str, Tensor], progress: dict[str, Any]) -> None:
        self.accumulator.arrays.restore(tensors)
        self.position = progress["position"]
        self.precision = progress["precision"]
        self.stream.hybrids_per_eval = progress["hybrids_per_eval"]
        self._ahead = dict(progress.get("ahead", []))
        self._continue_with(progress["active"])

    def _continue_with(self, active: list[int]) -> None:
        self._active = active
        self.stream.intervention = self._swap.of([self._sets[chosen] for chosen in active])


class SharedEstimate(Estimate):
    """An estimate of which each rank runs its share of every block of pairs.

    All ranks get the maps of the whole block and add them in the order of the pairs. So all hold the
    same state, make the same decisions, and end with the result of a single rank, up to the rounding of
    batches. Only rank 0 writes it to a file, and sends it to the others when the run is resumed.
    """

    def __init__(
        self, stream: Stream, swap: Swap, options: MapOptions, components: Components | None, exchange: Exchange
    ) -> None:
        super().__init__(stream, swap, options, components)
        self._exchange = exchange
        self._device = stream.generator.device
        # At least as wide as the accumulated maps, so that no precision is lost between ranks.
        self._dtype = torch.promote_types(stream.generator.dtype or torch.float64, torch.float32)
        pair_bytes = len(self._sets) * prod(options.size) * self._dtype.itemsize
        room = max(1, _BLOCK_BYTES // (pair_bytes * exchange.ranks.world))
        # Enough for whole batches. Rank 0's and fixed, because ranks that halve their batches must stay in step.
        each = min(room, max(STAGE, stream.hybrids_per_eval // len(self._sets)))
        self._block_pairs: int = exchange.from_first(each * exchange.ranks.world)

    def _block(self) -> int:
        return self._block_pairs

    def _run(self, end: int, ran: Callable[[int], object]) -> None:
        start, share = self.position, self._exchange.ranks.share(end - self.position)
        components = self.accumulator.arrays.all_components
        maps_of_block = self._empty_block(end, *self.options.size)
        energy_of_block = None if components is None else self._empty_block(end, len(components.stacked))
        for pair, sets, maps, energy in self._maps(start + share.start, start + share.stop):
            maps_of_block[pair - start, sets] = maps.to(maps_of_block)
            ran(len(sets))
            if energy_of_block is not None and energy is not None:
                energy_of_block[pair - start, sets] = energy.to(energy_of_block)
        self._exchange.complete(maps_of_block)
        if energy_of_block is not None:
            self._exchange.complete(energy_of_block)
        for place, maps in enumerate(maps_of_block):
            energy = None if energy_of_block is None else energy_of_block[place].to(self._device)
            self.accumulator.add(start + place, self._active, maps.to(self._device), energy)

    def _empty_block(self, end: int, *size: int) -> Tensor:
        """(pairs, active sets, *size) zeros, where they can be exchanged."""
        shape = (end - self.position, len(self._active), *size)
        return torch.zeros(shape, dtype=self._dtype, device=self._exchange.ranks.place(self._device))

    def resume(self, file: ProgressFile | None, left: Sequence[ProgressFile] = ()) -> None:
        # Also without a file here: the others may have been given none, and wait.
        state = self._kept(file, left) if file is not None and self._exchange.ranks.rank == 0 else None
        if (state := self._exchange.from_first(state)) is not None:
            self.restore(*state)

    def keep(self, file: Checkpoint) -> None:
        if self._exchange.ranks.rank == 0:
            super().keep(file)


def _are_ahead(ahead: Any, others: list[int], position: int, n: int) -> bool:
    """Whether these are pairs of a unit set among the others, and of where it is, further than ``position``."""
    return isinstance(ahead, list) and all(
        isinstance(item, list)
        and len(item) == 2
        and item[0] in others
        and isinstance(item[1], int)
        and position < item[1] <= n
        for item in ahead
    )
