"""Locks: one for all modules that share a part, whoever wraps them, and one for the process's random generators.

A child made by ``fork`` starts with locks of its own, since threads that held the parent's do not exist in it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from weakref import WeakKeyDictionary

from torch import nn


@dataclass
class Borrowing:
    """How many sessions of a module are nested in the thread that has it."""

    depth: int = 0


@dataclass(frozen=True)
class _GroupLock:
    """Of modules that share parts. Several are taken in the order of their numbers, so that no two threads wait for
    each other."""

    number: int = field(default_factory=count().__next__)
    lock: threading.RLock = field(default_factory=threading.RLock)


class _Locks:
    def __init__(self) -> None:
        self.registry = threading.Lock()
        self.groups: WeakKeyDictionary[nn.Module, _GroupLock] = WeakKeyDictionary()
        self.borrowings: WeakKeyDictionary[nn.Module, Borrowing] = WeakKeyDictionary()
        self.random = threading.RLock()

    def of(self, module: nn.Module) -> tuple[list[_GroupLock], Borrowing]:
        """All locks that its parts have from earlier modules, or a new one; each of its parts has one from now on."""
        with self.registry:
            parts = list(module.modules())
            known = {lock.number: lock for part in parts if (lock := self.groups.get(part)) is not None}
            locks = [known[number] for number in sorted(known)] or [_GroupLock()]
            for part in parts:
                self.groups.setdefault(part, locks[0])
            return locks, self.borrowings.setdefault(module, Borrowing())


_locks = _Locks()


@contextmanager
def holding(module: nn.Module) -> Iterator[Borrowing]:
    """This thread alone has the module inside: also of those that wrap it, or a part of it, in modules of their own."""
    locks, borrowing = _locks.of(module)
    with ExitStack() as stack:
        for each in locks:
            stack.enter_context(each.lock)
        borrowing.depth += 1
        try:
            yield borrowing
        finally:
            borrowing.depth -= 1


def random_lock() -> threading.RLock:
    """The lock of the global random generators of torch, NumPy and Python."""
    return _locks.random


def _after_fork() -> None:
    # In place: other modules reach the locks through the functions above.
    _locks.__init__()  # type: ignore[misc]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
