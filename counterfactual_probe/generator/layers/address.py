"""Addresses of layers: which submodule, which of its calls, its output or its input, and which entry of it.

``main.8`` is the output of a submodule, ``relu#2`` that of its second call, ``blocks.0[1]`` the second entry of an
output that is a tuple, ``encoder[hidden]`` an entry of one with named entries, ``to_out.0<`` the input.
"""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Callable, Container, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor

Entry: TypeAlias = "int | str"
# The arguments of a call, positional ones by number and others by name.
Arguments: TypeAlias = "tuple[tuple[Any, ...], dict[str, Any]]"

_SUFFIXES = re.compile(r"(?P<name>.+?)(?:#(?P<call>[^#\[<]*))?(?:\[(?P<entry>[^\[\]]*)\])?(?P<input><)?", re.DOTALL)


@dataclass(frozen=True)
class Address:
    """Where in a forward an activation stands.

    Attributes:
        name: of the submodule.
        call: which of its calls, from 1.
        entry: of an output, or of arguments, that are several; None is the first that is there.
        is_input: the input of the call, not its output.
    """

    name: str
    call: int = 1
    entry: Entry | None = None
    is_input: bool = False

    @property
    def made_by(self) -> tuple[str, int]:
        """The call that hands the activation over, or takes it: the submodule's name and the call's number."""
        return self.name, self.call

    def suffix(self, *, call: bool) -> str:
        """What follows the name, with the number of the call or without."""
        entry = "" if self.entry is None else f"[{self.entry}]"
        return (f"#{self.call}" if call else "") + entry + "<" * self.is_input


@dataclass(frozen=True)
class Parsed:
    """An address as it was written; ``call`` is what stands after ``#``, or None."""

    name: str
    call: str | None = None
    entry: Entry | None = None
    is_input: bool = False


def parse(text: str, names: Container[str], clean: Callable[[str], str]) -> Parsed:
    """Split an address; the text of a submodule's whole name is that submodule, whatever signs it holds.

    ``clean`` gives a name without the wrappers in it, as ``names`` have them.
    """
    if not text or clean(text) in names:
        return Parsed(clean(text))
    match = _SUFFIXES.fullmatch(text)
    if match is None:  # never of a text with a character in it
        return Parsed(text)
    entry = match["entry"]
    number = int(entry) if entry is not None and entry.isdecimal() else entry
    return Parsed(clean(match["name"]), match["call"], number, match["input"] is not None)


def entries(output: Any) -> Iterator[tuple[Entry | None, Tensor]]:
    """The tensors of an output by their entries: None for an output that is a tensor, and for the first of several."""
    if isinstance(output, Tensor):
        yield None, output
    else:
        yield from ((entry, value) for entry, value in _items(output) if isinstance(value, Tensor))


def _items(output: Any) -> Iterator[tuple[Entry | None, Any]]:
    if isinstance(output, (tuple, list)):
        yield from ((number or None, value) for number, value in enumerate(output))
    elif isinstance(output, Mapping):
        yield from ((key, value) for key, value in output.items() if _can_be_written(key))
    elif dataclasses.is_dataclass(output) and not isinstance(output, type):
        yield from ((field.name, getattr(output, field.name, None)) for field in dataclasses.fields(output))


def _can_be_written(key: Any) -> bool:
    """Whether a key can stand between the brackets of an address."""
    return (type(key) is int and key >= 0) or (isinstance(key, str) and not {"[", "]"} & set(key))


def tensor_at(output: Any, entry: Entry | None) -> Tensor | None:
    """The tensor of this entry; of None the output itself, or the first entry of a tuple."""
    if entry is None:
        return activation_of(output)
    return next((value for name, value in entries(output) if name == entry), None)


def activation_of(output: Any) -> Tensor | None:
    """The tensor that carries a layer's channels: the output, or the first entry of a tuple."""
    if isinstance(output, (tuple, list)) and output:
        output = output[0]
    return output if isinstance(output, Tensor) else None


def with_tensor_at(output: Any, entry: Entry | None, tensor: Tensor) -> Any:
    """The output with the tensor of this entry replaced; what is not replaced is the same object.

    A copy, never made anew from its parts: a class of the user's may take others, or compute some from others.
    """
    if isinstance(output, Tensor):
        return tensor
    if isinstance(output, (tuple, list)):
        return with_items(output, [tensor if number == (entry or 0) else item for number, item in enumerate(output)])
    if isinstance(output, Mapping):
        return with_values(output, {entry: tensor})
    changed = copy.copy(output)
    object.__setattr__(changed, str(entry), tensor)  # of a frozen dataclass, too
    return changed


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


def arguments(call: Arguments) -> Iterator[tuple[Entry, Tensor]]:
    """The tensors among the arguments of a call, positional ones first."""
    given, named = call
    yield from ((place, value) for place, value in enumerate(given) if isinstance(value, Tensor))
    yield from ((name, value) for name, value in named.items() if isinstance(value, Tensor))


def argument_at(call: Arguments, entry: Entry | None) -> Tensor | None:
    """An argument of a call by its number or name; of None the first tensor."""
    return next((value for name, value in arguments(call) if entry is None or name == entry), None)


def with_argument_at(call: Arguments, entry: Entry | None, tensor: Tensor) -> Arguments:
    """The arguments with one replaced."""
    given, named = list(call[0]), dict(call[1])
    if entry is None:
        entry = next(name for name, _ in arguments(call))
    if isinstance(entry, int):
        given[entry] = tensor
    else:
        named[entry] = tensor
    return tuple(given), named
