"""Where in memory the things are that a module's forward can change, by which modules affect each other."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from torch import Tensor

from .reachable import Reachable
from .tensors import as_plain_tensors, is_plain

# An object's identity, or a device and where on it a tensor's memory starts.
Place: TypeAlias = "int | tuple[str, int]"


def places_of(everything: Reachable) -> frozenset[Place]:
    """Of containers, objects and the memory of tensors and arrays, beside the modules themselves and their code."""
    found: set[Place] = {id(item) for item in everything.containers}
    found -= everything.own
    found.update(id(item) for item in (*everything.generators, *everything.opaque, *everything.iterators))
    # A dict here is of globals, whose names are known each by itself.
    found.update(id(owner) for owner, _ in everything.bindings if not isinstance(owner, dict))
    with as_plain_tensors():
        found.update(_memory(value) for value in everything.tensors if is_plain(value) and value.numel())
    found.update(_memory_of_array(value) for value in everything.arrays if value.size)
    return frozenset(found)


def _memory(value: Tensor) -> Place:
    return str(value.device), value.untyped_storage().data_ptr()


def _memory_of_array(value: np.ndarray[Any, Any]) -> Place:
    base: Any = value.base
    while isinstance(base, np.ndarray):
        value, base = base, base.base
    if isinstance(base, Tensor):
        return _memory(base)
    return "cpu", int(value.__array_interface__["data"][0])
