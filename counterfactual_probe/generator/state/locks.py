"""Locks: one for all modules that share a part, whoever wraps them, and one for the process's random generators.

A child made by ``fork`` starts with locks of its own, since threads that held the parent's do not exist in it.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Generic, TypeVar

from torch import nn

from .contents.places import Place, places_of
from .contents.reachable import reachable

T = TypeVar("T")


@dataclass
class Borrowing:
    """How many sessions of a module are nested in the thread that has it, and which thread that is."""

    depth: int = 0
    thread: int | None = None


class _ByIdentity(Generic[T]):
    """A value for each object, such as a module, as long as that lives, by identity: what it answers to a comparison,
    or to an attribute that it does not have, is its own affair. Names are compared."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[Any], T]] = {}
        self._named: dict[str, T] = {}

    def get(self, item: Any) -> T | None:
        if isinstance(item, str):
            return self._named.get(item)
        reference, value = self._known.get(id(item), (None, None))
        return value if reference is not None and reference() is item else None

    def setdefault(self, item: Any, value: T) -> T:
        found = self.get(item)
        if found is None:
            if isinstance(item, str):
                self._named[item] = value
            else:
                number, known = id(item), self._known
                known[number] = weakref.ref(item, lambda _: known.pop(number, None)), value
            found = value
        return found


class _ByPlaces(Generic[T]):
    """A value for each module that lives, which those find that reach a place in memory that it reaches as well.

    Lists and dicts have no weak references; a place that is used again for something else makes modules wait for
    each other, at worst.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[nn.Module], frozenset[Place], T]] = {}

    def find(self, places: frozenset[Place]) -> list[T]:
        return [value for _, known, value in list(self._known.values()) if not known.isdisjoint(places)]

    def set(self, module: nn.Module, places: frozenset[Place], value: T) -> None:
        number, known = id(module), self._known
        known[number] = weakref.ref(module, lambda _: known.pop(number, None)), places, value


@dataclass(frozen=True)
class _GroupLock:
    """Of modules that share parts, objects or memory, or what their code keeps in a class or a file. Several are taken
    in the order of their numbers, so that no two threads wait for each other."""

    number: int = field(default_factory=count().__next__)
    lock: threading.RLock = field(default_factory=threading.RLock)


class _Locks:
    def __init__(self) -> None:
        self.registry = threading.Lock()
        self.groups = _ByIdentity[_GroupLock]()
        self.places = _ByPlaces[_GroupLock]()
        self.borrowings = _ByIdentity[Borrowing]()
        self.random = threading.RLock()

    def of(self, module: nn.Module) -> tuple[list[_GroupLock], Borrowing]:
        """All locks that its parts have from earlier modules, or a new one; each of its parts has one from now on.

        Networks that it keeps in plain lists are parts, too. None are needed again by the thread that has them.
        """
        with self.registry:
            borrowing = self.borrowings.setdefault(module, Borrowing())
            if borrowing.thread == threading.get_ident():
                return [], borrowing
            everything = reachable(module)
            parts, places = [*everything.modules, *everything.shared], places_of(everything)
            found = [lock for part in parts if (lock := self.groups.get(part)) is not None]
            known = {lock.number: lock for lock in (*found, *self.places.find(places))}
            locks = [known[number] for number in sorted(known)] or [_GroupLock()]
            for part in parts:
                self.groups.setdefault(part, locks[0])
            self.places.set(module, places, locks[0])
            return locks, borrowing


_locks = _Locks()


@contextmanager
def holding(module: nn.Module) -> Iterator[Borrowing]:
    """This thread alone has the module inside: also of those that wrap it, or a part of it, in modules of their own."""
    locks, borrowing = _locks.of(module)
    with ExitStack() as stack:
        for each in locks:
            stack.enter_context(each.lock)
        borrowing.depth += 1
        borrowing.thread = threading.get_ident()
        try:
            yield borrowing
        finally:
            borrowing.depth -= 1
            if borrowing.depth == 0:
                borrowing.thread = None


def random_lock() -> threading.RLock:
    """The lock of the global random generators of torch, NumPy and Python."""
    return _locks.random


def _after_fork() -> None:
    # In place: other modules reach the locks through the functions above.
    _locks.__init__()  # type: ignore[misc]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
