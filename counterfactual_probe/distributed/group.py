"""The process group of torch.distributed: joining and leaving it, and what a broken collective says."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from ..base.errors import ProbeError, first_line

_PATIENCE = timedelta(seconds=10)
_LAUNCHER = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}


def join_group(device: torch.device) -> bool:
    """Whether this process is in a process group; one is initialised here if a launcher, such as torchrun, wants it."""
    if not dist.is_available():
        return False
    if not dist.is_initialized():
        if not os.environ.keys() >= _LAUNCHER:
            return False
        if device.type == "cuda":
            torch.cuda.set_device(device)  # NCCL sends objects from the current device, not from the generator's
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        atexit.register(_leave)
    return True


def _leave() -> None:
    """Destroy the group that was initialised here, together: a rank that exits early tears down what others still
    use."""
    if dist.is_initialized():
        with contextlib.suppress(RuntimeError):  # a rank that has died cannot be waited for
            dist.barrier(async_op=True).wait(timeout=_PATIENCE)
        dist.destroy_process_group()


@contextmanager
def collective() -> Iterator[None]:
    """Around a collective: one that cannot complete becomes a ProbeError."""
    try:
        yield
    except RuntimeError as error:
        raise ProbeError(
            f"another rank ended or cannot be reached ({first_line(error)[:120]}); start all ranks again, with the "
            "same checkpoint if there was one"
        ) from error


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
