"""Work that ranks do together: what fails on one of them is raised on all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist
from torch import Tensor

from ..base.errors import ProbeError, first_line
from .group import collective, uninterrupted
from .ranks import Ranks


@contextmanager
def together(ranks: Ranks) -> Iterator[Exchange]:
    """A failure on one rank inside is raised on every rank, so no rank blocks on a collective that never completes."""
    exchange = Exchange(ranks)
    failure: BaseException | None = None
    try:
        yield exchange
    except BaseException as error:
        failure = error
    if failure is None:
        exchange.agree()
        return
    if not exchange.over:
        with contextlib.suppress(ProbeError):  # a rank that has died meanwhile is not why this one failed
            exchange.agree(failure)
    raise failure


class Exchange:
    """What ranks exchange inside :func:`together`.

    Every exchange begins with :meth:`agree`. A rank that fails between two of them leaves at once, and tells the
    others at the end of ``together``, while they are in their next ``agree``: so all ranks make equally many,
    whichever of them fails, and wherever.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self.over = False  # every rank knows of a failure, or one cannot be reached: nothing more is exchanged

    def agree(self, failure: BaseException | None = None) -> None:
        """Tell the others whether this rank has failed; raise if another one has."""
        with uninterrupted():
            self.over = True
            messages = self.ranks.objects("" if failure is None else f"{type(failure).__name__}: {first_line(failure)}")
            failed = next((rank for rank, message in enumerate(messages) if message), None)
            if failed is None:
                self.over = False
            elif failure is None:
                raise ProbeError(f"rank {failed} failed ({messages[failed]}); mend that and run all ranks again")

    def from_first(self, value: Any) -> Any:
        """Rank 0's value, on every rank."""
        with self._exchanging():
            return self.ranks.first(value)

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
