"""Sharing work among the ranks of torch.distributed: who does what, and how it comes together.

Under ``torchrun`` every rank makes the same call; each runs its share of the unit sets, or of the
pairs when there are few sets, and all get the whole result. Without torch.distributed there is one
rank, and nothing here does anything.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..base.errors import ProbeError, first_line

_PATIENCE = timedelta(seconds=10)


@dataclass(frozen=True)
class Ranks:
    """This process's rank among ``world``."""

    rank: int = 0
    world: int = 1

    def dealt(self, items: int, rank: int | None = None) -> range:
        """The items that a rank gets when they are dealt out in turn: neighbours, such as the channels of one
        layer, cost the same, and go to different ranks."""
        return range(self.rank if rank is None else rank, items, self.world)

    def share(self, items: int, rank: int | None = None) -> range:
        """A rank's consecutive share of so many items; shares differ by one at most."""
        rank = self.rank if rank is None else rank
        each, more = divmod(items, self.world)
        start = rank * each + min(rank, more)
        return range(start, start + each + (rank < more))

    def require_same(self, identity: Mapping[str, Any]) -> None:
        """Every rank must make the same call on the same weights; otherwise all of them raise."""
        found = self._exchange(dict(identity))
        for rank, other in enumerate(found):
            for key, value in found[0].items():
                if other.get(key) != value:
                    raise ProbeError(
                        f"rank {rank} has another {key} than rank 0 ({other.get(key)!r:.60} and {value!r:.60}); make "
                        "the same call on the same weights on every rank"
                    )

    @contextmanager
    def together(self) -> Iterator[Meeting]:
        """What fails on one rank inside is raised on all, so that none waits for what will not come."""
        meeting = Meeting(self)
        failure: BaseException | None = None
        try:
            yield meeting
        except BaseException as error:
            failure = error
        if failure is None:
            meeting.agree()
            return
        if not meeting.over:
            with contextlib.suppress(ProbeError):  # a rank that has died meanwhile is not why this one failed
                meeting.agree(failure)
        raise failure

    def gather(self, arrays: Mapping[str, Tensor | None], items: int, device: torch.device) -> dict[str, Any]:
        """What the ranks made of the items dealt to them, put together in order on the CPU of every rank."""
        if self.world == 1:
            return dict(arrays)
        most, place = len(self.dealt(items, 0)), self.place(device)
        whole: dict[str, Any] = {}
        for name, array in arrays.items():
            if array is None:
                whole[name] = None
                continue
            padded = torch.zeros(most, *array.shape[1:], dtype=array.dtype, device=place)
            padded[: len(array)] = array
            parts = [torch.empty_like(padded) for _ in range(self.world)]
            with _collective():
                dist.all_gather(parts, padded)
            # Row by row: the first of every rank, then the second, and so on.
            whole[name] = torch.stack(parts, 1).flatten(0, 1)[:items].cpu()
        return whole

    def place(self, device: torch.device) -> torch.device:
        """Where tensors must be to be exchanged: NCCL moves those of its own devices only, others the CPU's."""
        return device if self.world > 1 and dist.get_backend() == "nccl" else torch.device("cpu")

    def first(self, value: Any) -> Any:
        """Rank 0's value, on every rank."""
        if self.world == 1:
            return value
        found = [value if self.rank == 0 else None]
        with _collective():
            dist.broadcast_object_list(found, src=0)
        return found[0]

    def _exchange(self, value: Any) -> list[Any]:
        if self.world == 1:
            return [value]
        found: list[Any] = [None] * self.world
        with _collective():
            dist.all_gather_object(found, value)
        return found


class Meeting:
    """What ranks exchange inside :meth:`Ranks.together`.

    Every exchange begins with :meth:`agree`. A rank that fails between two of them leaves at once, and
    tells the others at the end of ``together``, which is where they hold their next ``agree``: so all
    ranks make equally many, whichever of them fails, and wherever.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self.over = False  # all ranks know of a failure, or one cannot be reached: nothing more is exchanged

    def agree(self, failure: BaseException | None = None) -> None:
        """Say that this rank has failed, or that it has not; if another has, raise that."""
        with _uninterrupted():
            self.over = True
            messages = self.ranks._exchange(
                "" if failure is None else f"{type(failure).__name__}: {first_line(failure)}"
            )
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
                    with _collective():
                        dist.broadcast(array[share.start : share.stop], src=rank)

    @contextmanager
    def _exchanging(self) -> Iterator[None]:
        """Entered by all ranks or by none. Inside, nothing may fail on one rank alone."""
        with _uninterrupted():
            self.agree()
            self.over = True
            yield
            self.over = False


def current_ranks(device: torch.device) -> Ranks:
    """The ranks of the process group; it is made here when a launcher such as torchrun has set it up."""
    if not dist.is_available():
        return Ranks()
    if not dist.is_initialized():
        if not {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
            return Ranks()
        if device.type == "cuda":
            torch.cuda.set_device(device)  # NCCL sends objects from the current device, not from the generator's
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        atexit.register(_leave)
    return Ranks(dist.get_rank(), dist.get_world_size())


def _leave() -> None:
    """Leave the group that was made here, together: a rank that goes early tears down what others still use."""
    if dist.is_initialized():
        with contextlib.suppress(RuntimeError):  # a rank that has died cannot be waited for
            dist.barrier(async_op=True).wait(timeout=_PATIENCE)
        dist.destroy_process_group()


@contextmanager
def _collective() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise ProbeError(
            f"another rank ended or cannot be reached ({first_line(error)[:120]}); start all ranks again, with the "
            "same checkpoint if there was one"
        ) from error


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C waits for the end: a rank that leaves between two collectives would put the others out of step."""
    # Only the main thread hears signals, and a handler that is not Python's cannot be put back.
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is None:
        yield
        return
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if heard:
            signal.raise_signal(signal.SIGINT)
