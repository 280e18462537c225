"""Which dimension of each activation holds the samples, and what else that holds: from forwards of one and of several.

The dimension that grows with the number of samples holds them. Where it is not just as long as there are samples, a
number is folded into it; in which order is seen from the rows of samples that are run alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .address import Address
from .dimensions import axes as ax
from .trace import Seen, Trace

_TOLERANCE = 1e-4  # of numbers that summarise equal rows, in batches of other sizes


class SampleDimensions:
    """The dimension of the samples of every activation.

    Args:
        trace: of several samples.
        alone: of each of them alone.
    """

    def __init__(self, trace: Trace, alone: Sequence[Trace]) -> None:
        self._trace, self._alone = trace, alone
        # Both orders of a fold are possible where samples have equal rows, as of a zero convolution or a time: then it
        # is that of the last layer before with as many folded, or of the first behind.
        self._open: dict[Address, int] = {}
        self._folds: dict[Address, tuple[ax.Part, ...]] = {}
        for address, seen in trace.seen.items():
            if seen is not None and seen.rows is not None and self._grown(address, seen) == 0:
                self._look(address, seen)
        self._close()

    def axes_of(self, address: Address, seen: Seen) -> ax.Axes | None:
        """The axes of an activation with its channels where they were found; None where samples cannot be told."""
        dims, channels = len(seen.shape), seen.channels.number
        place = self._grown(address, seen)
        if place is None or place == channels:
            return None
        if seen.shape[place] != self._trace.samples:
            fold = self._folds.get(address) if place == 0 else None
            return None if fold is None else ax.standing(dims, fold, channels).bound(seen.shape, self._trace.samples)
        if place > 0 and channels is None and dims != 3:
            return None
        standing = ax.standing(dims, channels=channels if place == 0 or channels is not None else 2, place=place)
        return None if standing.channel_dim == place else standing.bound(seen.shape, self._trace.samples)

    def _grown(self, address: Address, seen: Seen) -> int | None:
        """The dimension that is as many times as long for several samples as for one; None if no single one is."""
        one = self._alone[0].seen.get(address) if self._alone else None
        if one is None or len(one.shape) != len(seen.shape):
            return None
        grown = [place for place, size in enumerate(seen.shape) if size != one.shape[place]]
        times = [seen.shape[place] == self._trace.samples * one.shape[place] for place in grown]
        return grown[0] if times == [True] else None

    def _look(self, address: Address, seen: Seen) -> None:
        each, left = divmod(seen.shape[0], self._trace.samples)
        expected = (each, *seen.shape[1:])
        ones = [trace.seen.get(address) for trace in self._alone[: self._trace.samples]]
        rows = [one.rows for one in ones if one is not None and one.shape == expected and one.rows is not None]
        if left or seen.rows is None or len(rows) < self._trace.samples:
            return
        outer = _agree(torch.stack(rows, 1).flatten(0, 1), seen.rows)
        inner = _agree(torch.cat(rows), seen.rows)
        if outer and inner:
            self._open[address] = each
        elif outer or inner:
            self._folds[address] = (each, ax.SAMPLES) if outer else (ax.SAMPLES, each)

    def _close(self) -> None:
        for addresses in (list(self._trace.seen), list(reversed(self._trace.seen))):
            last: dict[int, tuple[ax.Part, ...]] = {}
            for address in addresses:
                if address in self._folds:
                    fold = self._folds[address]
                    last[next(part for part in fold if isinstance(part, int))] = fold
                elif self._open.get(address) in last:
                    self._folds[address] = last[self._open[address]]


def _agree(one: Tensor, other: Tensor) -> bool:
    scale = float(torch.nan_to_num(one).abs().max())
    return torch.allclose(one, other, rtol=0.0, atol=_TOLERANCE * max(scale, 1e-30), equal_nan=True)
