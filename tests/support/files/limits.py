"""An input must be read or refused in a bounded time and with a bounded memory."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class TookTooLong(Exception):
    """A reader did not come to an end; no ProbeError, so that it fails the test."""


def peak_memory() -> int:
    """The most bytes that this process has held so far."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@contextmanager
def bounded(seconds: float, more_bytes: int) -> Iterator[None]:
    """Raise where what is inside takes longer, or holds so many more bytes than this process ever did before."""
    before = peak_memory()
    alarmed = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise TookTooLong(f"more than {seconds:g} s")

    if alarmed:
        earlier = signal.signal(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        if alarmed:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, earlier)
    taken = peak_memory() - before
    if taken > more_bytes:
        raise AssertionError(f"{taken / 2**20:.0f} MiB were taken, and {more_bytes / 2**20:.0f} are enough")
