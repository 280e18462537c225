"""The files in which ranks keep their progress: whose they are, and which unit sets each holds."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...base.checkpoint import Checkpoint
from ...base.files import names_in
from ...distributed.ranks import Ranks


@dataclass(frozen=True)
class ProgressFile:
    """A checkpoint, and the numbers of the unit sets that it holds."""

    checkpoint: Checkpoint
    sets: range


@dataclass(frozen=True)
class ProgressFiles:
    """Where a run keeps its progress: in PATH, or in PATH.rankIofN of each of several ranks.

    Ranks that share the unit sets keep their own progress each; of those that share pairs, rank 0 keeps that of all.

    Attributes:
        identity: all that must be equal for a run to be the same run, on whatever ranks.
        n_sets: unit sets of the run.
        by_pairs: whether so many ranks would share the pairs, not the unit sets.
    """

    path: Path
    identity: dict[str, Any]
    n_sets: int
    by_pairs: Callable[[int], bool]

    def of(self, ranks: Ranks) -> ProgressFile:
        """The file of a rank."""
        identity, everything = self.identity | {"ranks": ranks.world}, range(self.n_sets)
        if ranks.world == 1:
            return ProgressFile(Checkpoint(self.path, identity), everything)
        by_pairs = self.by_pairs(ranks.world)
        rank = 0 if by_pairs else ranks.rank
        name = f"{self.path.name}.rank{rank}of{ranks.world}"
        identity |= {"shared": "pairs" if by_pairs else "sets", "rank": rank}
        sets = everything if by_pairs else ranks.dealt(self.n_sets)
        return ProgressFile(Checkpoint(self.path.with_name(name), identity), sets)

    def of_other_numbers(self, world: int) -> list[ProgressFile]:
        """The files that there are of other numbers of ranks than this one."""
        found = [self.of(Ranks())] if world > 1 and self.path.exists() else []
        pattern = re.compile(re.escape(self.path.name) + r"\.rank(0|[1-9]\d*)of([1-9]\d*)")
        for name in names_in(self.path.parent):
            if (match := pattern.fullmatch(name)) is None:
                continue
            rank, others = int(match[1]), int(match[2])
            if others not in (1, world) and rank < (1 if self.by_pairs(others) else others):
                found.append(self.of(Ranks(rank, others)))
        return found
