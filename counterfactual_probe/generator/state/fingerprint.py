"""A fingerprint of all that a module's forward may depend on beside weights and input."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from torch import Tensor, nn

from .contents.containers import value_at
from .contents.opaque import WatchedIterator
from .contents.reachable import entries, items, reachable

# Attributes of modules that a session sets and restores: without them a fingerprint is the same inside and outside.
_BORROWED = ("training", "_compiled_call_impl")
_VALUES = (str, bytes, int, float, complex, bool, type(None))


def fingerprint(module: nn.Module) -> Hashable:
    """Hooks, attributes, entries of containers and tensors other than parameters, of everything reachable from it.

    It changes when any of these is assigned. Compared objects are referenced, so that no new object can get their id.
    """
    everything = reachable(module)
    of_modules = {id(part.__dict__) for part in everything.modules}
    marks: list[Hashable] = []
    for container in everything.containers:
        if isinstance(container, dict):
            hidden = _BORROWED if id(container) in of_modules else ()
            marks.append(tuple((_mark(key), _mark(value)) for key, value in entries(container) if key not in hidden))
        elif isinstance(container, set):
            marks.append(frozenset(map(_mark, items(container))))
        else:
            marks.append(tuple(map(_mark, items(container))))
    marks += [(name, _mark(value_at(owner, name))) for owner, name in everything.bindings]
    marks += [tuple((name, _mark(value)) for name, value in vars(kind).items()) for kind in everything.classes]
    marks += [array.tobytes() for array in everything.arrays]
    return tuple(marks)


class _Same:
    """Equal only to a mark of the same object."""

    def __init__(self, item: Any) -> None:
        self.item = item

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.item is self.item

    def __hash__(self) -> int:
        return id(self.item)


def _mark(item: Any) -> Hashable:
    if isinstance(item, _VALUES):
        return type(item), item
    if isinstance(item, Tensor):  # not held: it may be large
        return id(item), None if item.is_inference() else item._version, tuple(item.shape)
    return _Same(item.iterator if isinstance(item, WatchedIterator) else item)
