"""Containers, and single places, as they were: the same objects in the same order."""

from __future__ import annotations

from array import array
from collections import OrderedDict, defaultdict
from contextlib import suppress
from operator import is_
from typing import Any
from weakref import WeakKeyDictionary, WeakSet, WeakValueDictionary

import numpy as np

from .reachable import PLAIN_DICTS, Container, entries, items

MISSING = object()


def copy_of(item: Container) -> Any:
    if isinstance(item, dict) and type(item) in PLAIN_DICTS:
        return dict(item)
    if isinstance(item, (dict, WeakKeyDictionary, WeakValueDictionary)):
        return dict(entries(item))  # of weak ones they live on until they are put back
    return item[:] if isinstance(item, (bytearray, array)) else items(item)


def restore_container(item: Container, before: Any) -> None:
    if _is_same(item, before):
        return
    if isinstance(item, dict):
        # By the built-in type, since a subclass may refuse.
        kind = OrderedDict if isinstance(item, OrderedDict) else dict
        kind.clear(item)
        for key, value in before.items():
            kind.__setitem__(item, key, value)
    elif isinstance(item, (set, WeakSet, WeakKeyDictionary, WeakValueDictionary)):
        item.clear()
        item.update(before)
    elif isinstance(item, (bytearray, array)):
        item[:] = before  # of the same length, this works while others look into it
    else:
        item.clear()
        item.extend(before)


def _is_same(item: Container, before: Any) -> bool:
    """The same objects in the same order."""
    if isinstance(item, dict) and type(item) in PLAIN_DICTS:
        same_size = len(item) == len(before)
        return same_size and all(map(is_, item, before)) and all(map(is_, item.values(), before.values()))
    if isinstance(item, (bytearray, array)):
        return bool(item == before)
    if len(item) != len(before):
        return False
    if isinstance(item, (dict, WeakKeyDictionary, WeakValueDictionary)):
        pairs = zip(entries(item), before.items(), strict=True)
        return all(one[0] is two[0] and one[1] is two[1] for one, two in pairs)
    return all(one is two for one, two in zip(items(item), before, strict=True))


def _is_scope(owner: Any, name: str) -> bool:
    """Whether the name is one of a dict of globals."""
    return isinstance(owner, dict) and not (isinstance(owner, defaultdict) and name == "default_factory")


def value_at(owner: Any, name: str) -> Any:
    """What an attribute, a variable's cell or a dict of globals holds under a name; MISSING if nothing."""
    if _is_scope(owner, name):
        return owner.get(name, MISSING)
    if isinstance(owner, type):
        return vars(owner).get(name, MISSING)
    try:
        return getattr(owner, name, MISSING)
    except ValueError:  # an empty cell
        return MISSING


def put_at(owner: Any, name: str, value: Any) -> None:
    if _is_scope(owner, name):
        if value is MISSING:
            owner.pop(name, None)
        else:
            owner[name] = value
    elif isinstance(owner, type):
        # As their own class would: a metaclass may refuse.
        type.__delattr__(owner, name) if value is MISSING else type.__setattr__(owner, name, value)
    elif value is MISSING:
        object.__delattr__(owner, name)
    else:
        object.__setattr__(owner, name, value)


def restore_array(numbers: np.ndarray[Any, Any], before: np.ndarray[Any, Any]) -> None:
    """The numbers, shape and type of an array, in the memory that it has."""
    if not numbers.flags.writeable:
        numbers.setflags(write=True)
    if numbers.shape == before.shape and numbers.dtype == before.dtype and numbers.tobytes() == before.tobytes():
        return
    if numbers.dtype != before.dtype:
        settable: Any = numbers
        settable.dtype = before.dtype
    if numbers.size != before.size:
        numbers.resize(before.shape, refcheck=False)
    elif numbers.shape != before.shape:
        numbers.shape = before.shape
    numbers[...] = before


def restore_at(owner: Any, name: str, value: Any) -> None:
    if value_at(owner, name) is not value:
        put_at(owner, name, value)


def restore_class(kind: type, before: dict[str, Any]) -> None:
    """The attributes of a class; what only Python itself writes there stays."""
    now = dict(vars(kind))
    for name in now.keys() | before.keys():
        if now.get(name, MISSING) is not before.get(name, MISSING):
            with suppress(AttributeError, TypeError):
                put_at(kind, name, before.get(name, MISSING))
