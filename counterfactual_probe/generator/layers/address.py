"""Addresses of layers: which submodule, which of its calls, its output or its input, and which entry of it.

``main.8`` is the output of a submodule, ``relu#2`` that of its second call, ``relu#2-4`` those of three calls and
``relu#*`` of all, ``unet@conditional#2`` one half of a batch that guidance folds,
``blocks.0[1]`` the second entry of an output that is a tuple, ``encoder[hidden]`` an entry of one with named entries,
``rnn[1][0]`` one of a nested tuple, ``to_out.0<`` the input.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from itertools import product

from .entries import Entry, Key

ALL_CALLS = "#*"
_RANGE = re.compile(r"([0-9]+)-([0-9]+)")
_SUFFIXES = re.compile(
    r"(?P<name>.+?)(?:@(?P<half>[^@#\[<]+))?(?:#(?P<call>[^#\[<]*))?(?P<entry>(?:\[[^\[\]]*\])*)(?P<input><)?",
    re.DOTALL,
)
_KEY = re.compile(r"\[([^\[\]]*)\]")


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
    entry: Entry = None
    is_input: bool = False

    @property
    def made_by(self) -> tuple[str, int]:
        """The call that hands the activation over, or takes it: the submodule's name and the call's number."""
        return self.name, self.call

    def suffix(self, *, call: bool) -> str:
        """What follows the name, with the number of the call or without."""
        keys = self.entry if isinstance(self.entry, tuple) else () if self.entry is None else (self.entry,)
        return (f"#{self.call}" if call else "") + "".join(f"[{key}]" for key in keys) + "<" * self.is_input


@dataclass(frozen=True)
class Parsed:
    """An address as it was written.

    Attributes:
        call: what stands after ``#``, or None.
        keys: what stands in brackets.
        half: what stands after ``@``: one half of a folded batch.
    """

    name: str
    call: str | None = None
    keys: tuple[str, ...] = ()
    is_input: bool = False
    half: str | None = None

    @property
    def name_of_half(self) -> str:
        """The submodule, and the half if one is named."""
        return self.name if self.half is None else f"{self.name}@{self.half}"

    @property
    def is_span(self) -> bool:
        """Whether several calls are named."""
        return self.call == "*" or (self.call is not None and _RANGE.fullmatch(self.call) is not None)

    def calls(self, runs: int) -> range:
        """The calls that are named, of a submodule that runs so often; empty if there are none such."""
        if self.call == "*":
            return range(1, runs + 1)
        match = _RANGE.fullmatch(self.call or "")
        first, last = (int(match[1]), int(match[2])) if match else (1, 0)
        return range(first, last + 1) if 1 <= first <= last <= runs else range(0)

    @property
    def suffix(self) -> str:
        """What follows the name and the number of the call."""
        return "".join(f"[{key}]" for key in self.keys) + "<" * self.is_input

    def possible_entries(self) -> Iterator[Entry]:
        """A number is one of a tuple or, for all that is written, a key of a dict: 3 or "3"."""
        read: list[list[Key]] = [[int(key), key] if key.isdecimal() else [key] for key in self.keys]
        for keys in product(*read):
            yield None if not keys else keys[0] if len(keys) == 1 else keys


def parse(text: str, names: Container[str], clean: Callable[[str], str]) -> Parsed:
    """Split an address; the text of a submodule's whole name is that submodule, whatever signs it holds.

    ``clean`` gives a name without the wrappers in it, as ``names`` have them.
    """
    if not text or clean(text) in names:
        return Parsed(clean(text))
    match = _SUFFIXES.fullmatch(text)
    if match is None:  # never of a text with a character in it
        return Parsed(text)
    keys, name, half = tuple(_KEY.findall(match["entry"])), clean(match["name"]), match["half"]
    if half is not None and (whole := clean(f"{match['name']}@{half}")) in names:
        name, half = whole, None
    return Parsed(name, match["call"], keys, match["input"] is not None, half)
