"""The process group of torch.distributed: joining and leaving it, and what a broken collective says."""

from __future__ import annotations

import atexit
import contextlib
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from ..base.errors import Interrupted, ProbeError, first_line
from .launcher import Launched, Store, launched, missing_ranks, patience_of_ranks, stores

_FAREWELL = timedelta(seconds=10)
_joining = threading.Lock()  # two threads must not initialise it both


class _Notes:
    """Notes of the ranks in a store that all can read, by which those that are missing can be named."""

    def __init__(self) -> None:
        self.group: object = None
        self.store: Store | None = None
        self.meetings = 0

    def of_this_group(self, store: Store | None = None) -> None:
        """Begin anew if the group is another than before; without a store, in the one that it was made with."""
        if self.group is not dist.group.WORLD:
            getter = getattr(dist.distributed_c10d, "_get_default_store", None)
            if store is None and getter is not None:
                store = stores.PrefixStore("counterfactual-probe", getter())
            self.group, self.store, self.meetings = dist.group.WORLD, store, 0

    def arrive(self) -> None:
        """Note that this rank has come to its next meeting."""
        self.meetings += 1
        if self.store is not None:
            rank = dist.get_rank()
            self.store.set(f"met {self.meetings}/{rank}", "")
            if self.meetings > 2:
                self.store.delete_key(f"met {self.meetings - 2}/{rank}")

    def fail(self, sentence: str) -> None:
        """Note that this rank comes to the next meeting with a failure, for those that are still far from it."""
        if self.store is not None:
            self.store.set(f"failed {self.meetings + 1}", sentence)

    def failure(self) -> str:
        """What a rank that waits in the next meeting has noted, if it has failed."""
        key = f"failed {self.meetings + 1}"
        if self.store is None or not self.store.check([key]):
            return ""
        return str(self.store.get(key).decode(errors="replace"))

    def missing(self) -> str:
        """The ranks that have not come to this meeting, in words."""
        return "" if self.store is None else missing_ranks(self.store, f"met {self.meetings}", dist.get_world_size())


_notes = _Notes()


def join_group(device: torch.device) -> bool:
    """Whether this process is in a process group; one is initialised here if a launcher, such as torchrun, wants it."""
    if not dist.is_available():
        return False
    try:
        with _joining:
            return _joined(device)
    except KeyboardInterrupt as stop:
        raise interrupted(stop) from stop


def interrupted(stop: KeyboardInterrupt) -> Interrupted:
    """Ctrl-C as the error that says what it left, also where it came while nothing of the module's ran."""
    if isinstance(stop, Interrupted):
        return stop
    interrupted = Interrupted("interrupted; everything is as it was and nothing was saved; start again to get a result")
    interrupted.__cause__ = stop
    return interrupted


def _joined(device: torch.device) -> bool:
    if not dist.is_initialized():
        place = launched()
        if place is None:
            return False
        store = place.store()
        try:
            _require_one_kind(device, store, place)
            if device.type == "cuda":
                torch.cuda.set_device(device)  # NCCL sends objects from the current device, not from the generator's
            dist.init_process_group(
                "nccl" if device.type == "cuda" else "gloo",
                store=stores.PrefixStore("group", store),
                rank=place.rank,
                world_size=place.world,
                timeout=patience_of_ranks(),
            )
        except (RuntimeError, ValueError) as error:
            raise ProbeError(
                f"rank {place.rank} of {place.world} cannot join the others ({first_line(error)[:120]}); start all "
                "ranks again, or unset RANK to run alone"
            ) from error
        _notes.of_this_group(store)
        atexit.register(_leave, store)
    else:
        patience_of_ranks()  # said before anybody waits, if it is no number
        _notes.of_this_group()
    return True


def _require_one_kind(device: torch.device, store: Store, place: Launched) -> None:
    """Raise a ProbeError on all ranks if some are on GPUs and others not: NCCL and gloo would wait for each other."""
    store.set(f"device/{place.rank}", str(device))
    devices = [store.get(f"device/{rank}").decode(errors="replace") for rank in range(place.world)]
    on_gpus = [name.startswith("cuda") for name in devices]
    if (other := next((rank for rank in range(place.world) if on_gpus[rank] != on_gpus[0]), None)) is not None:
        store.set(f"device read/{place.rank}", "")
        with contextlib.suppress(RuntimeError):  # the store ends with its rank
            store.wait([f"device read/{rank}" for rank in range(place.world)], _FAREWELL)
        raise ProbeError(
            f"rank {other} runs on {devices[other]!r} and rank 0 on {devices[0]!r}; give every rank a GPU "
            "(CUDA_VISIBLE_DEVICES may be empty for some), or device='cpu' on all"
        )


def _leave(store: Store) -> None:
    """Destroy the group that was initialised here, together: a rank that exits early tears down what others still
    use. It waits for them through the store, as a barrier that is given up would keep the group from ending."""
    if dist.is_initialized():
        world = dist.get_world_size()
        with contextlib.suppress(RuntimeError):  # a rank that has died cannot be waited for
            store.set(f"left/{dist.get_rank()}", "")
            store.wait([f"left/{rank}" for rank in range(world)], _FAREWELL)
        _notes.group = _notes.store = None  # else the group's threads live on while Python ends, which may abort it
        dist.destroy_process_group()


def gathered(tensor: torch.Tensor) -> list[torch.Tensor]:
    """Every rank's tensor, of one shape; ranks that do not come are waited for as long as patience lasts."""
    parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    with collective():
        work = dist.all_gather(parts, tensor, async_op=True)
        if work is not None:
            work.wait(patience_of_ranks())
    return parts


def arrived(failure: str = "") -> None:
    """Tell the others, if they ask, that this rank has come to its next meeting, and with which failure."""
    with collective():
        if failure:
            _notes.fail(failure)
        _notes.arrive()


def failure_of_another() -> str:
    """What another rank has failed with that already waits for this one; nothing if none does."""
    with collective():
        return _notes.failure()


@contextmanager
def collective(*, with_work: bool = False) -> Iterator[None]:
    """Around a collective: one that cannot complete becomes a ProbeError, which names the ranks that are missing.

    ``with_work`` says that it is one inside a computation, whose own errors pass.
    """
    try:
        yield
    except RuntimeError as error:
        if with_work and not _is_of_the_group(error):
            raise
        missing = _notes.missing()
        raise ProbeError(
            f"another rank ended or cannot be reached ({f'{missing} did not come; ' if missing else ''}"
            f"{first_line(error)[:120]}); make the same calls on every rank and start all again, with the same "
            "checkpoint if there was one"
        ) from error


def _is_of_the_group(error: RuntimeError) -> bool:
    """Whether ranks that wait for each other raised this, and not what they compute, as in the backward of a loss."""
    if not dist.is_available() or not dist.is_initialized():
        return False
    said = str(error).lower()
    return isinstance(error, dist.DistError) or any(
        word in said for word in ("gloo", "nccl", "timed out", "connection")
    )


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C is delivered at the end: a rank that leaves between two collectives would put the others out of step."""
    # Only the main thread receives signals, and a handler that was not installed from Python cannot be restored.
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is None:
        yield
        return
    received: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: received.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if received:
            signal.raise_signal(signal.SIGINT)
