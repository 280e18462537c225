"""Objects of the standard library and of NumPy whose state is in no attribute and no entry.

What can be put back, is: streams in memory, queues, caches of functions that were empty. What cannot be, is seen and
named: iterators, counters of what seed sequences have spawned, entries that a cache has gained.
"""

from __future__ import annotations

import asyncio
import gc
import io
import sys
import threading
from argparse import Namespace
from collections import ChainMap, UserDict, UserList
from collections.abc import Callable, Iterator
from contextlib import suppress
from contextvars import ContextVar
from functools import lru_cache
from queue import Empty, Queue, SimpleQueue
from types import MappingProxyType, SimpleNamespace
from typing import Any
from weakref import ReferenceType

import numpy as np

# Of the standard library, with state of the user's in attributes. Containers of `collections` are containers.
KEEPERS = (
    UserDict,
    UserList,
    ChainMap,
    SimpleNamespace,
    Namespace,
    Queue,
    asyncio.Queue,
    threading.local,
    threading.Event,
    threading.Semaphore,
)
OPAQUE = (io.IOBase, SimpleQueue, np.random.SeedSequence)
POINTERS = (ReferenceType, ContextVar, memoryview, MappingProxyType)
Cache: Any = type(lru_cache(len))

Restore = Callable[[], str]


def restorer(item: Any) -> Restore:
    """A function that puts back what an object is now; it returns "", or what cannot be put back and a cure."""
    if isinstance(item, (io.StringIO, io.BytesIO)):
        return _of_stream(item)
    if isinstance(item, io.IOBase):
        return _of_file(item)
    if isinstance(item, SimpleQueue):
        return _of_queue(item)
    return _of_cache(item) if isinstance(item, Cache) else _of_seeds(item)


def _of_stream(item: io.StringIO | io.BytesIO) -> Restore:
    if item.closed:
        return lambda: ""
    kind: Any = io.StringIO if isinstance(item, io.StringIO) else io.BytesIO
    before = kind.__getstate__(item)[:-1]  # the last is the dict of attributes

    def restore() -> str:
        if item.closed:
            return "closes a stream; leave it open"
        if kind.__getstate__(item)[:-1] != before:
            kind.__setstate__(item, (*before, None))
        return ""

    return restore


def _of_file(item: io.IOBase) -> Restore:
    """Where it is read, and how long it is; of the process's own streams, and of what cannot be sought in, nothing."""
    before = None if item in (sys.stdout, sys.stderr, sys.stdin) else _place_and_length(item)

    def restore() -> str:
        now = None if before is None else _place_and_length(item)
        if before is None or now == before:
            return ""
        if now is None or now[1] != before[1]:
            return "writes to a file that it keeps, or closes it, which cannot be put back; let a hook write it"
        item.seek(before[0])
        return ""

    return restore


def _place_and_length(item: io.IOBase) -> tuple[int, int] | None:
    try:
        place = item.tell()
        length = item.seek(0, io.SEEK_END)
        item.seek(place)
    except (OSError, ValueError):  # it is closed, a pipe, or being iterated over
        return None
    return place, length


def _of_queue(item: SimpleQueue[Any]) -> Restore:
    before = _drained(item)
    _refill(item, before)

    def restore() -> str:
        now = _drained(item)
        same = len(now) == len(before) and all(one is two for one, two in zip(now, before, strict=True))
        _refill(item, now if same else before)
        return ""

    return restore


def _drained(item: SimpleQueue[Any]) -> list[Any]:
    entries = []
    with suppress(Empty):
        while True:
            entries.append(item.get_nowait())
    return entries


def _refill(item: SimpleQueue[Any], entries: list[Any]) -> None:
    for entry in entries:
        item.put(entry)


def _of_seeds(item: np.random.SeedSequence) -> Restore:
    before = item.n_children_spawned

    def restore() -> str:
        if item.n_children_spawned == before:
            return ""
        return "spawns from a SeedSequence, whose counter cannot be put back; spawn in __init__"

    return restore


def _of_cache(item: Any) -> Restore:
    """Its entries are those of the function that it is of, so that only an empty one can be emptied again."""
    before = item.cache_info()

    def restore() -> str:
        now = item.cache_info()
        if before.currsize == 0 and now != before:
            item.cache_clear()
        elif before.maxsize is not None and now.misses != before.misses:
            name = getattr(item, "__name__", "a function")
            return f"adds to the cache of {name}, which is not empty; call {name}.cache_clear() before"
        return ""

    return restore


def held_by_cache(item: Any) -> Iterator[Any]:
    """What a cache of a function leads to: the function, and the results that are kept.

    Where the cache has no limit, its dict holds results themselves, and is put back as any; where it has one, the dict
    holds links of a list that only its own code may cut.
    """
    limited = item.cache_parameters()["maxsize"] is not None
    for part in gc.get_referents(item):
        if isinstance(part, type):
            continue
        if limited and isinstance(part, dict) and part is not item.__dict__ and _is_of_links(part, item):
            continue
        yield part


def _is_of_links(entries: dict[Any, Any], cache: Any) -> bool:
    size = cache.cache_info().currsize
    return len(entries) == size and (not size or type(next(iter(entries.values()))).__name__ == "_lru_list_elem")


def is_iterator(item: Any) -> bool:
    """Whether it is one of Python's own, such as a generator or a count, of which nothing tells how far it is."""
    kind = type(item)
    return kind.__module__ in ("builtins", "itertools") and hasattr(kind, "__next__")


class WatchedIterator:
    """An iterator in the place of another, which notes whether anything was taken from that."""

    def __init__(self, iterator: Any) -> None:
        self.iterator, self.advanced = iterator, False

    def __iter__(self) -> WatchedIterator:
        return self

    def __next__(self) -> Any:
        self.advanced = True
        return next(self.iterator)

    def __getattr__(self, name: str) -> Any:
        self.advanced = True  # `send`, say
        return getattr(self.iterator, name)


def pointed_at(item: Any) -> list[Any]:
    """What a weak reference, a context variable, or a view of memory or of a dict leads to."""
    if isinstance(item, ReferenceType):
        return [item()]
    if isinstance(item, ContextVar):
        return [item.get(None)]
    return [item.obj] if isinstance(item, memoryview) else gc.get_referents(item)
