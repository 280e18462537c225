"""The furthest that each unit set has come, in whichever file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..arrays import SHARED


class Furthest:
    """The furthest state of each of some unit sets, put together from several files, one after the other.

    A set's rows depend on the pairs that it has seen alone, so they may come from any run of the same identity.

    Args:
        sets: the numbers of the wanted unit sets.
        n_pairs: of the whole run.
        like: arrays of that many rows before the first pair.
    """

    def __init__(self, sets: Sequence[int], n_pairs: int, like: Mapping[str, Tensor]) -> None:
        self._sets, self._n = sets, n_pairs
        self._tensors = {name: torch.zeros_like(value, device="cpu") for name, value in like.items()}
        self._tensors |= {name: like[name].cpu().clone() for name in SHARED if name in like}
        self._reach = [0] * len(sets)
        self._stopped = [False] * len(sets)
        self._batches: list[int] = []
        self._precision = ""

    def add(self, sets: Sequence[int], tensors: Mapping[str, Tensor], progress: Mapping[str, Any]) -> None:
        """Take the rows that have come further than those of earlier files."""
        rows = {chosen: row for row, chosen in enumerate(sets)}
        position, active = progress["position"], set(progress["active"])
        ahead = dict(progress.get("ahead", ()))
        for place, chosen in enumerate(self._sets):
            row = rows.get(chosen)
            if row is None or self._stopped[place]:
                continue
            reach = ahead.get(row, position)
            stopped = row not in active and row not in ahead
            if not stopped and reach <= self._reach[place]:
                continue
            self._reach[place], self._stopped[place] = reach, stopped
            for name, value in tensors.items():
                if name in SHARED:
                    self._tensors[name].copy_(value)
                else:
                    self._tensors[name][place] = value[row]
        if position or ahead:
            self._batches.append(progress["hybrids_per_eval"])
            self._precision = self._precision or progress["precision"]

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """What a checkpoint of the wanted sets would hold; None if no file had any of them."""
        going_on = [place for place, stopped in enumerate(self._stopped) if not stopped]
        if not any(self._reach) and len(going_on) == len(self._sets):
            return None
        position = min((self._reach[place] for place in going_on), default=self._n)
        ahead = [[place, self._reach[place]] for place in going_on if self._reach[place] > position]
        return self._tensors, {
            "position": position,
            "active": [place for place in going_on if self._reach[place] == position],
            "ahead": ahead,
            "hybrids_per_eval": min(self._batches),
            "precision": self._precision,
        }
