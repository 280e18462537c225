"""A mark of all that a module's forward may depend on beside weights and input: it differs when any of it was set."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from torch import Tensor, nn

from .reachable import reachable

_VALUES = (str, bytes, int, float, complex, bool, type(None))


def fingerprint(module: nn.Module) -> Hashable:
    """Hooks, attributes, entries of containers and the tensors that are no parameters, of everything it leads to.

    Values that are compared are held, so that no other object can take their place.
    """
    everything = reachable(module)
    entries: list[Hashable] = []
    for container in everything.containers:
        if isinstance(container, dict):
            entries.append(tuple((_mark(key), _mark(value)) for key, value in container.items()))
        elif isinstance(container, set):
            entries.append(frozenset(map(_mark, container)))
        else:
            entries.append(tuple(map(_mark, container)))
    entries += [(name, _mark(getattr(item, name, None))) for item, name in everything.slotted]
    entries += [array.tobytes() for array in everything.arrays]
    return tuple(entries)


class _Same:
    """Equal to a mark of the very same object."""

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
    return _Same(item)
