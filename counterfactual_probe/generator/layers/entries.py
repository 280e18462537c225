"""The tensors in what a call takes or gives: by number in tuples, by key or name in all else, however deep they lie."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from types import SimpleNamespace
from typing import Any, TypeAlias

from torch import Tensor

Key: TypeAlias = "int | str"
# A key, or those of nested containers from the outermost on; None for what is a tensor, and for the first of a tuple.
Entry: TypeAlias = "Key | tuple[Key, ...] | None"
# The arguments of a call, positional ones by number and others by name.
Arguments: TypeAlias = "tuple[tuple[Any, ...], dict[str, Any]]"

_DEEPEST = 4


def entries(output: Any) -> Iterator[tuple[Entry, Tensor]]:
    """The tensors of an output by their entries."""
    for keys, value in _found(output):
        is_first = keys == (0,) and isinstance(output, (tuple, list))
        yield (None if is_first or not keys else _entry(keys)), value


def tensor_at(output: Any, entry: Entry) -> Tensor | None:
    """The tensor of this entry; of None the output itself, or the first entry of a tuple."""
    if entry is None:
        return activation_of(output)
    return next((value for name, value in entries(output) if name == entry), None)


def activation_of(output: Any) -> Tensor | None:
    """The tensor that carries a layer's channels: the output, or the first entry of a tuple."""
    if isinstance(output, (tuple, list)) and output:
        output = output[0]
    return output if isinstance(output, Tensor) else None


def with_tensor_at(output: Any, entry: Entry, tensor: Tensor) -> Any:
    """The output with the tensor of this entry replaced; what is not replaced is the same object."""
    if isinstance(output, Tensor):
        return tensor
    return _replaced(output, _keys(entry), tensor)


def arguments(call: Arguments) -> Iterator[tuple[Entry, Tensor]]:
    """The tensors among the arguments of a call, positional ones first."""
    for keys, value in (*_found(call[0]), *_found(call[1])):
        yield _entry(keys), value


def argument_at(call: Arguments, entry: Entry) -> Tensor | None:
    """An argument of a call by its entry; of None the first tensor."""
    return next((value for name, value in arguments(call) if entry is None or name == entry), None)


def with_argument_at(call: Arguments, entry: Entry, tensor: Tensor) -> Arguments:
    """The arguments with one replaced."""
    given, named = call
    keys = _keys(next(name for name, _ in arguments(call)) if entry is None else entry)
    if isinstance(keys[0], int):
        return _replaced(given, keys, tensor), named
    return given, _replaced(named, keys, tensor)


def with_items(output: Any, items: Sequence[Any]) -> Any:
    """A tuple or list of the same kind with other items."""
    if isinstance(output, list):
        changed = copy.copy(output)
        changed[:] = items
        return changed
    try:
        made = tuple.__new__(type(output), items)
    except TypeError:  # a class of C, such as the two results of torch.max
        return type(output)(items)
    getattr(made, "__dict__", {}).update(getattr(output, "__dict__", {}))
    return made


def with_values(output: Mapping[Any, Any], values: Mapping[Any, Any]) -> Any:
    """A mapping of the same kind with some other values."""
    if not isinstance(output, MutableMapping):
        return type(output)({**output, **values})  # type: ignore[call-arg]
    try:
        changed = copy.copy(output)
    except TypeError:  # its class wants arguments
        changed = type(output).__new__(type(output))
        changed.update(output)
    for key, value in values.items():
        changed[key] = value
    return changed


def _entry(keys: tuple[Key, ...]) -> Entry:
    return keys[0] if len(keys) == 1 else keys


def _keys(entry: Entry) -> tuple[Key, ...]:
    """The keys of an entry; of None that of the first in a tuple."""
    return (0,) if entry is None else entry if isinstance(entry, tuple) else (entry,)


def _found(output: Any, before: tuple[Key, ...] = ()) -> Iterator[tuple[tuple[Key, ...], Tensor]]:
    if isinstance(output, Tensor):
        yield before, output
    elif len(before) < _DEEPEST:  # a container may hold itself
        for key, value in _items(output):
            yield from _found(value, (*before, key))


def _items(output: Any) -> Iterator[tuple[Key, Any]]:
    if isinstance(output, (tuple, list)):
        yield from enumerate(output)
    elif isinstance(output, Mapping):
        yield from ((key, value) for key, value in output.items() if _can_be_written(key))
    elif dataclasses.is_dataclass(output) and not isinstance(output, type):
        yield from ((field.name, getattr(output, field.name, None)) for field in dataclasses.fields(output))
    elif isinstance(output, SimpleNamespace):
        yield from ((key, value) for key, value in vars(output).items() if _can_be_written(key))


def _can_be_written(key: Any) -> bool:
    """Whether a key can stand between the brackets of an address."""
    return (type(key) is int and key >= 0) or (isinstance(key, str) and not {"[", "]"} & set(key))


def _replaced(output: Any, keys: tuple[Key, ...], tensor: Tensor) -> Any:
    """A copy with another tensor, never made anew from its parts: a class of the user's may take others, or compute
    some from others."""
    if not keys:
        return tensor
    first, *rest = keys
    value = _replaced(dict(_items(output))[first], tuple(rest), tensor)
    if isinstance(output, (tuple, list)):
        return with_items(output, [value if number == first else item for number, item in enumerate(output)])
    if isinstance(output, Mapping):
        return with_values(output, {first: value})
    changed = copy.copy(output)
    object.__setattr__(changed, str(first), value)  # of a frozen dataclass, too
    return changed
