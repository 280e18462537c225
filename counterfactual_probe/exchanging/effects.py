"""What hybrids of groups of unit sets change, summed over pixels, pair by pair."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import prod

import numpy as np
import torch
from torch import Tensor

from ..base.progress import progress_bar
from ..engine import Pairs, Stream, Swap
from ..engine.interventions import path_of
from ..generator.adapter import GeneratorAdapter
from ..generator.units import Space, UnitSet, union
from ..modules.clustering import Array

_MOST_BYTES = 2**25  # of the changes of a pair that are held at once


@dataclass(frozen=True, kw_only=True)
class Sums:
    """Sums over pixels of mean |…| over colours; d is a hybrid minus its base, and w that of all units.

    The first group is of the modules, the others of random sets in their places.

    Attributes:
        change: (groups, pairs, K) |d|.
        missing: (groups, pairs, K) |d − w| inside of the set's region.
        inside, outside: (groups, pairs, K) |w| inside and outside of it.
        changed_outside: (groups, pairs, K) |d| outside of it.
        joint: (groups, pairs, K, K) |d| of both sets together, a row for each first one; 0 on the diagonal, like the
            two below.
        depends: (groups, pairs, K, K) |d of both − d of one − d of the other|.
        given_other: (groups, pairs, K, K) |d of both − d of the second|: what the first changes where the second is
            exchanged already.
        whole: (pairs,) |w|, everywhere.
    """

    change: Array
    missing: Array
    inside: Array
    outside: Array
    changed_outside: Array
    joint: Array
    depends: Array
    given_other: Array
    whole: Array


class Effects:
    """Hybrids of groups of K disjoint unit sets, each alone and in pairs, and of all units together.

    Args:
        groups: of K sets each; the first are the modules.
        all_units: the exchange that goes as far as the layers can.
    """

    def __init__(
        self,
        generator: GeneratorAdapter,
        space: Space,
        groups: Sequence[Sequence[UnitSet]],
        all_units: UnitSet,
        *,
        hybrids_per_eval: int | None,
        show_progress: bool,
    ) -> None:
        self.generator, self.space, self.groups, self.all_units = generator, space, groups, all_units
        self.hybrids_per_eval, self.show_progress = hybrids_per_eval, show_progress
        self.two = list(combinations(range(len(groups[0])), 2))

    def measure(self, pairs: Pairs, regions: Tensor, seed: int) -> Sums:
        """Over all pairs; ``regions`` are (groups, K, pixels), on the generator's device."""
        k, groups = len(self.groups[0]), len(self.groups)
        per_group = k + len(self.two)
        pixels = prod(self.generator.image_size)
        together = max(1, _MOST_BYTES // (4 * pixels * per_group))
        one = (groups, pairs.n, k)
        alone = {name: np.zeros(one) for name in ("change", "missing", "inside", "outside", "changed_outside")}
        both = {name: np.zeros((*one, k)) for name in ("joint", "depends", "given_other")}
        whole = np.zeros(pairs.n)
        everything = self.space.in_run([self.all_units])[0]
        runs = [self.space.in_run(self._sets(group))[0] for group in self.groups]
        swap = Swap(
            [*everything, *(units for sets in runs for units in sets)], self.space.by_call(self.space.coordinates)
        )
        stream = Stream(self.generator, swap, pairs, seed=seed, hybrids_per_eval=self.hybrids_per_eval)
        total = pairs.n * (groups * per_group + -(-groups // together))
        with (
            self.generator.session(),
            progress_bar(total, "exchanges", "hybrid", self.show_progress) as bar,
        ):
            for start in range(0, groups, together):
                some = runs[start : start + together]
                stream.intervention = swap.of([*everything, *(units for sets in some for units in sets)])
                chosen = slice(start, start + len(some))
                for pair, changes in _by_pair(stream, bar):
                    sums = self._sums(changes, regions[chosen])
                    whole[pair] = sums.pop("whole")
                    for name, values in sums.items():
                        (alone if name in alone else both)[name][chosen, pair] = values
        return Sums(**alone, **both, whole=whole)

    def _sets(self, group: Sequence[UnitSet]) -> list[UnitSet]:
        """Each alone, then each two together."""
        return [*group, *(union([group[a], group[b]]) for a, b in self.two)]

    def _sums(self, changes: Tensor, regions: Tensor) -> dict[str, Array]:
        """Of one pair: changes (1 + groups × sets, C, …), those of all units first."""
        groups, k = regions.shape[:2]
        flat = changes.flatten(2).to(torch.promote_types(changes.dtype, torch.float32))
        whole, d = flat[0], flat[1:].view(groups, -1, *flat.shape[1:])
        single, joint = d[:, :k], d[:, k:]
        inside = regions.to(flat.dtype)
        reach, change = whole.abs().mean(0), single.abs().mean(2)
        missing = (single - whole).abs_().mean(2)
        sums = {
            "change": change.sum(2),
            "missing": (missing * inside).sum(2),
            "inside": (reach * inside).sum(2),
            "outside": (reach * (1 - inside)).sum(2),
            "changed_outside": (change * (1 - inside)).sum(2),
            "whole": reach.sum(),
        } | {name: flat.new_zeros(groups, k, k) for name in ("joint", "depends", "given_other")}
        for place, (a, b) in enumerate(self.two):
            of_both = joint[:, place]
            given_b, given_a = of_both - single[:, b], of_both - single[:, a]
            sums["joint"][:, a, b] = sums["joint"][:, b, a] = _total(of_both)
            sums["depends"][:, a, b] = sums["depends"][:, b, a] = _total(given_b - single[:, a])
            sums["given_other"][:, a, b], sums["given_other"][:, b, a] = _total(given_b), _total(given_a)
        return {name: value.double().cpu().numpy() for name, value in sums.items()}


def _total(changes: Tensor) -> Tensor:
    """(groups,) of changes (groups, C, pixels)."""
    return changes.abs().mean(1).sum(1)


def _by_pair(stream: Stream, bar: object) -> Iterator[tuple[int, Tensor]]:
    """Each pair with the changes of all its sets, (sets, C, …)."""
    sets, n = stream.intervention.sets, stream.pairs.n
    # Of several paths through the generator, a block of pairs runs one after the other: pairs alone take less memory.
    several = len({path_of(units) for units in sets}) > 1
    for start, stop in [(pair, pair + 1) for pair in range(n)] if several else [(0, n)]:
        seen, changes = 0, None
        for effect in stream.run(start, stop):
            of_sets = effect.of_sets(effect.hybrids - effect.original)
            if changes is None:
                changes = of_sets.new_zeros(len(sets), *of_sets.shape[1:])
            changes[effect.sets] = of_sets
            seen += len(effect.sets)
            bar.update(len(effect.sets))  # type: ignore[attr-defined]
            if seen == len(sets):
                yield effect.pair, changes
                seen, changes = 0, None
