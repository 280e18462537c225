"""Everything reachable from a module: the modules, containers, objects and tensors that its attributes lead to.

A forward reaches more than registered submodules: networks kept in a plain list, a scheduler's counters, a dict of
grids. The walk follows attributes, slots and entries of containers, what methods and partial functions hold that
are no hooks, functions' defaults, and the networks in closures; nothing else: other parts of closures may lead to
all that the user's program is doing, and classes, files, iterators and other objects of the standard library are taken
as they are.
"""

from __future__ import annotations

import random
import sys
import threading
from argparse import Namespace
from array import array
from collections import ChainMap, UserDict, UserList, deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from queue import Queue
from types import FunctionType, MethodType, SimpleNamespace
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary, WeakSet, WeakValueDictionary

import numpy as np
import torch
from torch import Tensor, nn

WeakDict = WeakKeyDictionary[Any, Any] | WeakValueDictionary[Any, Any]
# In quotation marks, because before Python 3.12 an array takes no type of its entries.
Container: TypeAlias = (
    "dict[Any, Any] | list[Any] | set[Any] | deque[Any] | bytearray | array[Any] | WeakDict | WeakSet[Any]"
)
# Objects with random numbers of their own.
Random = torch.Generator | np.random.Generator | np.random.BitGenerator | np.random.RandomState | random.Random

# Not walked into: they belong to the process, not to the module. Containers of `collections` are containers.
_FOREIGN = frozenset(sys.stdlib_module_names) | {"torch", "numpy", "counterfactual_probe"}
_KEEPERS = (
    UserDict,
    UserList,
    ChainMap,
    SimpleNamespace,
    Namespace,
    Queue,
    threading.local,
)  # of the standard library, with state of the user's
_COMPRESSED = (torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc)
_PLAIN = (str, bytes, int, float, complex, bool, type(None), torch.dtype, torch.device, torch.Size)


@dataclass
class Reachable:
    """Each thing once, in the order in which the walk met it."""

    modules: list[nn.Module] = field(default_factory=list)
    containers: list[Container] = field(default_factory=list)
    slotted: list[tuple[Any, str]] = field(default_factory=list)  # objects with the names of their slots
    tensors: list[Tensor] = field(default_factory=list)
    arrays: list[np.ndarray[Any, Any]] = field(default_factory=list)
    generators: list[Random] = field(default_factory=list)
    # By identity, functions that are hooks: those of an observer, whose notes are not the module's, are not undone.
    hooks: set[int] = field(default_factory=set)


def reachable(module: nn.Module) -> Reachable:
    """Everything the module leads to, the module first."""
    result, seen = Reachable(), set[int]()
    waiting: deque[Any] = deque([module])
    while waiting:
        item = waiting.popleft()
        if isinstance(item, _PLAIN) or id(item) in seen:
            continue
        seen.add(id(item))
        waiting.extend(_note(item, result))
    return result


def _note(item: Any, result: Reachable) -> Iterator[Any]:
    """Put an item where it belongs; gives what it leads to."""
    if isinstance(item, Tensor):
        result.tensors.append(item)
        yield from _values_of(item)
    elif isinstance(item, np.ndarray):
        result.arrays.append(item)
        yield from list(item.flat) if item.dtype == object else ()
    elif isinstance(item, Random):
        result.generators.append(item)
    elif isinstance(item, dict):
        result.containers.append(item)
        # Whole, at one moment: another thread may be in a forward.
        for key, value in list(item.items()):
            yield key
            yield value
    elif isinstance(item, (bytearray, array, WeakKeyDictionary, WeakValueDictionary, WeakSet)):
        result.containers.append(item)
    elif isinstance(item, (list, set, deque)):
        result.containers.append(item)
        yield from list(item)
    elif isinstance(item, (tuple, frozenset)):
        yield from item
    elif isinstance(item, nn.Module):
        result.modules.append(item)
        result.hooks.update(_hooks_of(item))
        yield item.__dict__
    elif isinstance(item, (FunctionType, MethodType, partial)):
        if id(item) not in result.hooks:
            yield from _of_function(item)
    elif _is_own_object(item):
        yield from _attributes(item, result)


def _values_of(item: Tensor) -> Iterator[Tensor]:
    """Those of a sparse tensor, which is written in place through them."""
    if item.layout is torch.sparse_coo:
        yield item.detach()._values()
    elif item.layout in _COMPRESSED:
        yield item.detach().values()


def _hooks_of(module: nn.Module) -> Iterator[int]:
    for name, value in module.__dict__.items():
        if name.endswith("_hooks") and isinstance(value, dict):
            yield from map(id, value.values())


def _of_function(item: Any) -> Iterator[Any]:
    """What a function that an attribute holds leads to: the attributes set on it, what it is bound to, networks."""
    if isinstance(item, partial):
        yield from (item.func, item.args, item.keywords, item.__dict__)
    elif isinstance(item, MethodType):
        yield item.__self__
    elif item.__module__ is None or item.__module__.partition(".")[0] not in _FOREIGN:
        yield from (item.__dict__, item.__defaults__, item.__kwdefaults__)
        for cell in item.__closure__ or ():
            with suppress(ValueError):  # an empty one
                if isinstance(cell.cell_contents, nn.Module):
                    yield cell.cell_contents


def _is_own_object(item: Any) -> bool:
    kind = type(item)
    if isinstance(item, _KEEPERS):
        return True
    if isinstance(item, type) or callable(getattr(kind, "__get__", None)):  # classes, functions, methods
        return False
    return kind.__module__.partition(".")[0] not in _FOREIGN


def _attributes(item: Any, result: Reachable) -> Iterator[Any]:
    attributes = getattr(item, "__dict__", None)
    if isinstance(attributes, dict):
        yield attributes
    for kind in type(item).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__"):
                result.slotted.append((item, _mangled(kind, name)))
                yield getattr(item, _mangled(kind, name), None)


def _mangled(kind: type, name: str) -> str:
    private = name.startswith("__") and not name.endswith("__")
    return f"_{kind.__name__.lstrip('_')}{name}" if private else name
