"""Work that ranks do together: what fails on one of them is raised on all."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..base.errors import ProbeError, first_line
from .group import arrived, collective, failure_of_another, interrupted, uninterrupted
from .ranks import Ranks, current_ranks

_CURE = "mend that and run all ranks again"
_SECONDS_BETWEEN_LOOKS = 1.0
_calling = threading.RLock()


@contextmanager
def together(ranks: Ranks) -> Iterator[Exchange]:
    """A failure on one rank inside is raised on every rank, so no rank blocks on a collective that never completes."""
    with _alone(ranks):
        yield from _together(ranks)


@contextmanager
def _alone(ranks: Ranks) -> Iterator[None]:
    """One call at a time: nothing would tell the exchanges of two threads apart."""
    if ranks.world > 1 and not _calling.acquire(blocking=False):
        raise ProbeError(
            f"another thread of rank {ranks.rank} is in a call that all ranks make; make such calls one after the "
            "other, in the same order on every rank"
        )
    try:
        yield
    finally:
        if ranks.world > 1:
            _calling.release()


def _together(ranks: Ranks) -> Iterator[Exchange]:
    exchange = Exchange(ranks)
    failure: BaseException | None = None
    try:
        yield exchange
    except KeyboardInterrupt as stop:
        failure = interrupted(stop)
    except BaseException as error:
        failure = error
    try:
        if failure is None:
            exchange.agree()
            return
        if not exchange.over:
            with contextlib.suppress(ProbeError):  # a rank that has died meanwhile is not why this one failed
                exchange.agree(failure)
    except KeyboardInterrupt as stop:
        failure = failure or interrupted(stop)
    if failure is not None:
        raise failure


@contextmanager
def told_to_all(device: torch.device) -> Iterator[None]:
    """What is raised inside is raised on the other ranks as well, in whatever they next do :func:`together`."""
    try:
        yield
    except Exception as error:
        with contextlib.suppress(ProbeError):
            if (ranks := current_ranks(device)).world > 1:
                Exchange(ranks).agree(error)
        raise


class Exchange:
    """What ranks exchange inside :func:`together`.

    Every exchange begins with :meth:`agree`. A rank that fails between two of them leaves at once, and tells the
    others at the end of ``together``, while they are in their next ``agree``: so all ranks make equally many,
    whichever of them fails, and wherever.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self._next_look = 0.0
        self.over = False  # every rank knows of a failure, or one cannot be reached: nothing more is exchanged

    def agree(self, failure: BaseException | None = None) -> None:
        """Tell the others whether this rank has failed; raise if another one has."""
        with uninterrupted():
            self.over = True
            message = "" if failure is None else f"{type(failure).__name__}: {first_line(failure)}"
            if self.ranks.world > 1:
                arrived(message and f"rank {self.ranks.rank} failed ({message})")
            messages = self.ranks.objects(message)
            failed = next((rank for rank, message in enumerate(messages) if message), None)
            if failed is None:
                self.over = False
            elif failure is None:
                raise ProbeError(f"rank {failed} failed ({messages[failed]}); {_CURE}")

    def look(self) -> None:
        """Raise if another rank has failed and waits; cheap, for work that is long between two exchanges."""
        if self.ranks.world > 1 and time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + _SECONDS_BETWEEN_LOOKS
            if failure := failure_of_another():
                raise ProbeError(f"{failure}; {_CURE}")

    def from_first(self, value: Any) -> Any:
        """Rank 0's value, on every rank."""
        with self._exchanging():
            return self.ranks.first(value)

    def objects(self, value: Any) -> list[Any]:
        """Every rank's value, in order of rank."""
        with self._exchanging():
            return self.ranks.objects(value)

    def gather(self, arrays: Mapping[str, Tensor | None], items: int, device: torch.device) -> dict[str, Any]:
        """Rows of the items dealt to each rank, put together in order on the CPU of every rank."""
        with self._exchanging():
            return self.ranks.gather(arrays, items, device)

    def require_same(self, identity: Mapping[str, Any]) -> None:
        """Every rank must make the same call on the same weights; otherwise all of them raise."""
        identities = self.objects(dict(identity))
        for rank, other in enumerate(identities):
            for key in {**identities[0], **other}:  # one may hold what the other lacks
                value = identities[0].get(key)
                if other.get(key) != value:
                    raise ProbeError(
                        f"rank {rank} has another {key} than rank 0 ({other.get(key)!r:.60} and {value!r:.60}); make "
                        "the same call on the same weights on every rank"
                    )

    def complete(self, array: Tensor) -> None:
        """Fill in the other ranks' shares of the first dimension, in place; this rank has filled in its own."""
        with self._exchanging():
            for rank in range(self.ranks.world):
                share = self.ranks.share(len(array), rank)
                if self.ranks.world > 1 and share:
                    with collective():
                        dist.broadcast(array[share.start : share.stop], src=rank)

    @contextmanager
    def _exchanging(self) -> Iterator[None]:
        """Entered by all ranks or by none. Inside, nothing may fail on one rank alone."""
        with uninterrupted():
            self.agree()
            self.over = True
            yield
            self.over = False
