"""Locks: one for each module, whoever wraps it, and one for the process's random generators.

A child made by ``fork`` starts with locks of its own, since threads that held the parent's do not exist in it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from torch import nn


@dataclass
class ModuleLock:
    """Held while a module is borrowed; ``depth`` counts the sessions nested in the thread that holds it."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    depth: int = 0


class _Locks:
    def __init__(self) -> None:
        self.registry = threading.Lock()
        self.modules: WeakKeyDictionary[nn.Module, ModuleLock] = WeakKeyDictionary()
        self.random = threading.RLock()


_locks = _Locks()


@contextmanager
def holding(module: nn.Module) -> Iterator[ModuleLock]:
    """This thread alone has the module inside: one lock for all adapters and classifiers that share it."""
    with _locks.registry:
        held = _locks.modules.setdefault(module, ModuleLock())
    with held.lock:
        held.depth += 1
        try:
            yield held
        finally:
            held.depth -= 1


def random_lock() -> threading.RLock:
    """The lock of the global random generators of torch, NumPy and Python."""
    return _locks.random


def _after_fork() -> None:
    # In place: other modules reach the locks through the functions above.
    _locks.__init__()  # type: ignore[misc]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
