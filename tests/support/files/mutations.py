"""Hypothesis strategies for files: valid ones of every kind with values, shapes or bytes changed."""

from __future__ import annotations

import copy
import json
import struct
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import strategies as st

# What a field may hold instead: other types, and numbers that take all memory or never end where they are believed.
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 3, 2**31, 2**63, 10**18, 10**30, 0.5, -0.0, 1e300, float("nan"), float("inf")),
    *("", "a", "0", "\0", "\ud800", "x" * 3000, "../../etc/passwd", "os:system", "\x1b[31m", "=cmd|' /C'!A0", "NaN"),
    *([], [1], [[]], ["a"], [None], [10**18], {}, {"a": 1}, {"": []}, [[1, 2], [3]], [1.5, "a"]),
)
_TEXTS: tuple[bytes, ...] = (
    *(b"", b"{", b"[]", b"null", b"NaN", b"\xef\xbb\xbf{}", b"\xff\xfe{\0}\0", b'{"a": 1, "a": 2}', b"[" * 100_000),
    *(b'{"a":' * 5_000 + b"1" + b"}" * 5_000, b"1" * 5_000, b"-", b'"\\ud800"', b"{}\0", b" " * 5_000, b"1e999"),
)


_TYPES = ("F32", "I32", "U32", "I64", "F64", "BF16", "BOOL", "F8_E4M3", "C64", "X1")


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value inside."""
    yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in inside:
        yield from places(inner, (*path, key))


def _change_at(draw: Any, value: Any, path: tuple[Any, ...]) -> Any:
    """The value with what lies at a path replaced, removed, doubled or renamed."""
    if not path:
        return copy.deepcopy(draw(st.sampled_from(VALUES)))
    parent = value
    for key in path[:-1]:
        parent = parent[key]
    last = path[-1]
    how = draw(st.sampled_from(["replace"] * 4 + ["remove", "rename", "double", "nest"]))
    if how == "remove":
        del parent[last]
    elif how == "rename" and isinstance(parent, dict):
        parent[draw(st.sampled_from(["", "a", "\0", "__class__", "x" * 2000]))] = parent.pop(last)
    elif how == "double" and isinstance(parent, list):
        parent.insert(last, copy.deepcopy(parent[last]))
    elif how == "nest":
        for _ in range(draw(st.sampled_from([1, 70, 400]))):
            parent[last] = [parent[last]]
    else:
        parent[last] = copy.deepcopy(draw(st.sampled_from(VALUES)))
    return value


@st.composite
def changed_json(draw: Any, value: Any) -> bytes:
    """The text of a JSON value in which one to three values are changed, or another text altogether."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.sampled_from(_TEXTS))
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        value = _change_at(draw, value, draw(st.sampled_from(list(places(value)))))
    text = json.dumps(value).encode()
    return draw(changed_bytes(text)) if draw(st.integers(0, 9)) == 0 else text


@st.composite
def changed_bytes(draw: Any, content: bytes) -> bytes:
    """Content cut off, with bytes changed, put in or left out."""
    how = draw(st.sampled_from(["cut", "flip", "insert", "delete", "swap ends", "zero"]))
    place = draw(st.integers(0, max(len(content) - 1, 0)))
    length = draw(st.sampled_from([1, 2, 8, 64]))
    if how == "cut":
        return content[:place]
    if how == "flip" and content:
        return content[:place] + bytes([content[place] ^ draw(st.integers(1, 255))]) + content[place + 1 :]
    if how == "insert":
        return content[:place] + draw(st.binary(min_size=length, max_size=length)) + content[place:]
    if how == "zero":
        return content[:place] + bytes(length) + content[place + length :]
    if how == "delete":
        return content[:place] + content[place + length :]
    return content[place:] + content[:place]


def taken_apart(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and data of a safetensors file."""
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def put_together(header: bytes, data: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + data


@st.composite
def changed_tensors(draw: Any, content: bytes, key: str = "counterfactual-probe") -> bytes:
    """A safetensors file with its description, the shapes and names of its tensors, or its bytes changed."""
    header, data = taken_apart(content)
    kinds = ["bytes", "header", "shape"] + (["description"] * 5 if key in header.get("__metadata__", {}) else ["shape"])
    how = draw(st.sampled_from(kinds))
    if how == "bytes":
        return draw(changed_bytes(content))
    if how == "header":
        return put_together(draw(changed_json(header)), data)
    if how == "description":
        text = draw(changed_json(json.loads(header["__metadata__"][key])))
        header["__metadata__"][key] = text.decode("utf-8", "replace")
        return put_together(json.dumps(header).encode(), data)
    return put_together(json.dumps(_reshaped(draw, header)).encode(), data)


def _reshaped(draw: Any, header: dict[str, Any]) -> dict[str, Any]:
    """Another shape, type or name of a tensor, over the same bytes where that can be."""
    names = sorted(name for name in header if name != "__metadata__")
    if not names:
        return header
    about = header[draw(st.sampled_from(names))]
    shape = about["shape"]
    choices: list[Callable[[], Any]] = [
        lambda: about.update(shape=shape[::-1]),
        lambda: about.update(shape=[*shape, 1]),
        lambda: about.update(shape=[1, *shape]),
        lambda: about.update(shape=shape[1:] if shape[:1] == [1] else shape),
        lambda: about.update(shape=[0, 10**18], data_offsets=[about["data_offsets"][0]] * 2),
        lambda: about.update(
            dtype=draw(st.sampled_from(["F32", "I32", "U32", "I64", "F64", "BF16", "BOOL", "F8_E4M3", "C64"]))
        ),
        lambda: header.update(
            {draw(st.sampled_from([f"blocks.{10**18}.0.weight", "", "x", "\0"])): header.pop(names[0])}
        ),
        lambda: header.pop(names[-1]),
        lambda: header.update(_swapped(header, names)),
    ]
    draw(st.sampled_from(choices))()
    return header


def _swapped(header: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """The first two tensors under each other's names."""
    first, second = names[0], names[-1]
    return {first: header[second], second: header[first]}
