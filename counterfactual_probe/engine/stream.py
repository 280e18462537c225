"""Walk over pairs and unit sets, many hybrids per forward, in a fixed order and memory.

Every unit set sees the pairs in order; a batch may span several pairs. Nothing is
kept but the clean runs of one block of pairs and the hybrids of one batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor

from ..base.errors import whole
from ..base.memory import Awaited, is_out_of_memory, no_room
from ..generator.adapter import GeneratorAdapter
from ..generator.images import all_finite
from ..generator.latents import Latents
from .checked import NOT_FINITE
from .executors import Executor, FullForward
from .interventions import Intervention, path_of
from .pairs import Pairs
from .runs import BoundIntervention, CleanRun, Runs
from .select import executor_for


@dataclass(frozen=True)
class Effect:
    """The hybrids of one pair for some unit sets, with the original of the same batch.

    Only sets that change the run have an image: ``hybrids[i]`` belongs to set ``changed[i]``.
    """

    pair: int
    sets: list[int]  # in rising order
    changed: list[int]
    hybrids: Tensor  # (len(changed), C, H, W)
    original: Tensor  # (C, H, W)

    def maps(self) -> Tensor:
        """|hybrid − original|, averaged over colours, of every one of the sets: (sets, H, W)."""
        return self.of_sets((self.hybrids - self.original).abs_().mean(1))

    def of_sets(self, of_hybrids: Tensor) -> Tensor:
        """A quantity of the hybrids with a row for every set: zeros for those that change nothing."""
        if len(self.changed) == len(self.sets):
            return of_hybrids
        rows = of_hybrids.new_zeros(len(self.sets), *of_hybrids.shape[1:])
        changed = set(self.changed)
        rows[[place for place, chosen in enumerate(self.sets) if chosen in changed]] = of_hybrids
        return rows


@dataclass(frozen=True)
class _Segment:
    """Part of a batch: one sample and some of its sets."""

    sample: int
    sets: list[int]
    changed: list[int]


@dataclass(frozen=True)
class _Batch:
    """Images of several segments, of which it may not be known yet whether they are finite.

    ``together`` says whether the original of each segment is a row before its hybrids.
    """

    segments: Sequence[_Segment]
    runs: Runs
    images: Tensor
    is_finite: Awaited
    together: bool


class Stream:
    """All hybrids of an intervention, one :class:`Effect` after the other.

    ``hybrids_per_eval`` is the number of hybrids in one forward; None derives it from shapes. It is
    halved when memory runs out, and the attribute tells the value in use. ``intervention`` may be
    replaced between runs by one on some of the unit sets.
    """

    def __init__(
        self,
        generator: GeneratorAdapter,
        intervention: Intervention,
        pairs: Pairs,
        *,
        seed: int = 0,
        hybrids_per_eval: int | None = None,
        precision: str = "float32",
        executor: Executor | None = None,
    ) -> None:
        if hybrids_per_eval is not None:
            hybrids_per_eval = whole(hybrids_per_eval, "hybrids_per_eval", 1)
        self.generator = generator
        self.intervention = intervention
        self.pairs = pairs
        self.seed = seed
        self.executor = executor or executor_for(
            generator, intervention.sets, precision, pairs.n, coordinates=intervention.coordinates
        )
        limit = generator.batch_limit() if self.executor.batches else 1
        if limit > 1:
            limit -= 1  # one row is the original's; odd batches are slower in some kernels
        self.hybrids_per_eval = limit if hybrids_per_eval is None or not self.executor.batches else hybrids_per_eval

    def run(self, start: int = 0, end: int | None = None) -> Iterator[Effect]:
        """Yield the effects of pairs ``start`` to ``end``, by default all, in order.

        Call and iterate inside ``generator.session()``.
        """
        end = self.pairs.n if end is None else end
        while start < end:
            stop = min(end, start + self.hybrids_per_eval)
            base, source = self._clean_block(start, stop)
            start = base.numbers[-1] + 1
            yield from self._block(base, self.intervention.bind(base, source))

    def _clean_block(self, start: int, stop: int) -> tuple[CleanRun, CleanRun | None]:
        layers, numbers = self.intervention.layers, range(start, stop)
        try:
            base = self.executor.clean(self.pairs.base(start, stop), layers, numbers, self.seed)
            source = None
            if self.pairs.source is not None:
                source = self._clean_source(self.pairs.source(start, stop), numbers)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if stop - start == 1:
                raise no_room("the clean run of a single latent") from error
            self.hybrids_per_eval = max(1, (stop - start) // 2)
        else:
            self.generator.require_finite(base.images, lambda i: f"of base latent {start + i}")
            if source is not None:
                self.generator.require_finite(source.images, lambda i: f"of source latent {start + i}")
            return base, source
        return self._clean_block(start, min(stop, start + self.hybrids_per_eval))

    def _clean_source(self, latents: Latents, numbers: Sequence[int]) -> CleanRun:
        layers, taken_from = self.intervention.layers, self.intervention.taken_from
        if not taken_from:
            return self.executor.clean(latents, layers, numbers, self.seed, base=False)
        # Other layers than those that are set: a program of these does not tell them.
        others = list(dict.fromkeys(taken_from.get(layer, layer) for layer in layers))
        return FullForward(self.generator).clean(latents, others, numbers, self.seed, base=False)

    @property
    def _together(self) -> bool:
        """Whether the original is a row of the hybrids' batch; with room for one row it cannot be."""
        return self.executor.batches and self.hybrids_per_eval > 1

    def _block(self, base: CleanRun, bound: BoundIntervention) -> Iterator[Effect]:
        changes = [bound.changes(sample) for sample in range(len(base.numbers))]
        waiting: _Batch | None = None  # an accelerator has its next batch to do while Python looks at the one before
        for sets in self._by_path():
            position = (0, 0)
            while position[0] < len(changes):
                room = self.hybrids_per_eval + self._together
                segments, following = _segments(changes, sets, position, room, self._together)
                made: _Batch | None = None
                try:
                    made = self._evaluate(base, bound, segments)
                except Exception as error:
                    if not is_out_of_memory(error):
                        raise
                    if waiting is None and self.hybrids_per_eval == 1:
                        raise no_room("a single hybrid") from error
                if waiting is not None:
                    yield from self._effects(base, waiting)
                elif made is None:
                    self.hybrids_per_eval //= 2
                waiting = None
                if made is not None:
                    position = following
                    if self.generator.device.type == "cpu":
                        yield from self._effects(base, made)
                    else:
                        waiting = made
        if waiting is not None:
            yield from self._effects(base, waiting)

    def _by_path(self) -> list[list[int]]:
        """The unit sets by the layers they set: a batch has hybrids of one path through the generator."""
        paths: dict[frozenset[str], list[int]] = {}
        for chosen, units in enumerate(self.intervention.sets):
            paths.setdefault(path_of(units), []).append(chosen)
        return list(paths.values())

    def _evaluate(self, base: CleanRun, bound: BoundIntervention, segments: Sequence[_Segment]) -> _Batch:
        # The original is run again in the hybrids' own batch: kernels round differently for other
        # batch sizes, and what an intervention does not reach must come out with the same bits.
        together = self._together
        rows: list[int] = []
        sets: list[int | None] = []
        for segment in segments:
            if segment.changed:
                rows += [segment.sample] * (len(segment.changed) + together)
                sets += [None] * together
                sets += segment.changed
        runs = Runs(bound, rows, sets)
        images = self.executor.intervened(base, runs) if rows else base.images[:0]
        return _Batch(segments, runs, images, Awaited(torch.isfinite(images.sum())), together)

    def _effects(self, base: CleanRun, batch: _Batch) -> Iterator[Effect]:
        images, row = self._finite(base, batch), 0
        for segment in batch.segments:
            original = base.images[segment.sample]
            if segment.changed:
                if batch.together:
                    original = images[row]
                    row += 1
                hybrids = images[row : row + len(segment.changed)]
                row += len(segment.changed)
            else:
                hybrids = images[:0]
            number = base.numbers[segment.sample]
            yield Effect(number, segment.sets, segment.changed, hybrids, original)

    def _finite(self, base: CleanRun, batch: _Batch) -> Tensor:
        """The images of a batch; those of a fall-back if a fast executor's are not finite, and else a ProbeError."""
        images, runs = batch.images, batch.runs
        if batch.is_finite or all_finite(images):
            return images
        if self.executor.doubt(NOT_FINITE):
            images = self.executor.intervened(base, runs)

        def where(row: int) -> str:
            units = self.intervention.sets[chosen].label() if (chosen := runs.sets[row]) is not None else "no unit"
            return f"of base latent {base.numbers[runs.samples[row]]} with unit set {{{units}}}"

        self.generator.require_finite(images, where)
        return images


def _segments(
    changes: Sequence[Sequence[bool]], sets: Sequence[int], position: tuple[int, int], room: int, originals: bool
) -> tuple[list[_Segment], tuple[int, int]]:
    """The next segments in at most ``room`` rows, and the (sample, place in ``sets``) that follows them.

    Each segment with a hybrid takes one row more if ``originals`` are run along. A sample that has
    more sets than room gets batches of its own, of nearly equal size.
    """
    segments: list[_Segment] = []
    sample, first = position
    while sample < len(changes):
        row = [chosen for chosen in sets[first:] if changes[sample][chosen]]
        most = room - originals
        if len(row) > most:
            if segments:
                break
            most = ceil(len(row) / ceil(len(row) / most))
            last = sets.index(row[most], first)
            segments.append(_Segment(sample, list(sets[first:last]), row[:most]))
            return segments, (sample, last)
        segments.append(_Segment(sample, list(sets[first:]), row))
        room -= len(row) + originals if row else 0
        sample, first = sample + 1, 0
    return segments, (sample, first)
