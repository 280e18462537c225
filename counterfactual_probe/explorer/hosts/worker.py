"""One computation at a time, in a thread that does not keep the program from ending."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class Worker(Generic[T]):
    """Runs what it is given in turn. What is cancelled before its turn never runs."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[Future[T], Callable[[], T]] | None] = queue.SimpleQueue()
        # As a daemon: at Ctrl-C nobody waits for the image that is being computed.
        self._thread = threading.Thread(target=self._run, name="explorer", daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()
        self._jobs.put((future, job))
        return future

    def stop(self) -> None:
        """End after what is running; what still waits is run as well, unless it is cancelled."""
        self._jobs.put(None)

    def _run(self) -> None:
        while (item := self._jobs.get()) is not None:
            future, job = item
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(job())
            except BaseException as error:  # whoever waits for the result gets it
                future.set_exception(error)
