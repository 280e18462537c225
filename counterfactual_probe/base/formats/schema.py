"""Declared schemas: values of a file as the types that they must have, or a sentence on the first that differs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


class Schema(msgspec.Struct, forbid_unknown_fields=True):
    """Base of a declared schema: other fields than its own are refused."""


class OpenSchema(msgspec.Struct):
    """The same for files that others add to: further fields are ignored."""


def conform(value: Any, kind: type[T], what: str = "") -> T:
    """The value, of a field called ``what``, as ``kind``; a ValueError names it, what stands there and what must.

    >>> conform([1, "a"], list[int], "units")
    Traceback (most recent call last):
    ValueError: units[1] is 'a' and must be an integer
    """
    try:
        return msgspec.convert(value, kind, strict=True)
    except msgspec.ValidationError as error:
        raise ValueError(_sentence(str(error), value, what)) from None


_WORDS = {
    "int": "an integer",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}


def _sentence(message: str, value: Any, what: str) -> str:
    problem, _, place = message.partition(" - at `$")
    place = place.removesuffix("`")
    field = f"{what}{place}".removeprefix(".") or "the whole"
    if match := re.fullmatch(r"Object (?:missing required|contains unknown) field `(.*)`", problem, re.DOTALL):
        does = "lacks" if "missing" in problem else "holds an unknown"
        return f"{field if what or place else 'it'} {does} {match[1]!r:.60}"
    if problem[:1].islower():  # a sentence of a schema's own
        return f"{what}{place}.{problem}".removeprefix(".")
    expected, _, _ = problem.removeprefix("Expected ").partition(", got ")
    found = list(_values_at(value, place))
    shown = f"{field:.80} is {_shown(found[0])}" if len(found) == 1 else f"a value at {field:.80} is another"
    if problem.startswith("Invalid enum value"):
        return f"{shown}, which is none of those known"
    if problem.startswith("Expected"):
        return f"{shown} and must be {_plain(expected)}"
    return f"{shown} ({problem[0].lower()}{problem[1:]})"


def _plain(expected: str) -> str:
    """The library's words for types, as a reader of errors says them."""

    def words(match: re.Match[str]) -> str:
        return " or ".join(_WORDS.get(name, name) for name in match[1].split(" | "))

    return re.sub(r"`([^`]*)`", words, expected)


def _values_at(value: Any, place: str) -> Iterator[Any]:
    """The values at a path such as ``.units[0][...]``, where dots stand for any key."""
    match = re.match(r"\.([^.\[]+)|\[(\d+)\]|\[(\.\.\.)\]", place)
    if match is None:
        yield value
        return
    rest = place[match.end() :]
    if match[1] is not None and isinstance(value, dict) and match[1] in value:
        yield from _values_at(value[match[1]], rest)
    elif match[2] is not None and isinstance(value, list) and int(match[2]) < len(value):
        yield from _values_at(value[int(match[2])], rest)
    elif match[3] is not None and isinstance(value, dict):
        for inner in value.values():
            yield from _values_at(inner, rest)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
