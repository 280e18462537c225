"""JSON of files, read strictly: what two readers could understand differently is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

_DEEPEST = 64  # lists and objects inside one another; our own files have at most eight
_MARK = b"\xef\xbb\xbf"


def strict_json(content: bytes | str, *, nan: bool = False, any_text: bool = False) -> Any:
    """The value of a JSON text; a ValueError says what is wrong with it.

    >>> strict_json('{"width": 3}')
    {'width': 3}
    >>> strict_json('{"width": 3, "width": 4}')
    Traceback (most recent call last):
    ValueError: it names 'width' twice in one object

    ``nan``: whether NaN and Infinity may stand for numbers, as they do in files of results; ``any_text``: whether texts
    may hold null bytes and bytes of file names that are no text, as names of layers in our own files can.
    """
    if isinstance(content, bytes):
        if content.startswith(_MARK):
            raise ValueError("it begins with a byte-order mark")
        content = content.decode()
    try:
        value = json.loads(
            content,
            object_pairs_hook=_once,
            parse_constant=float if nan else _no_constant,
            parse_float=float if nan else _finite,
        )
    except RecursionError:
        raise ValueError(f"it is nested more than {_DEEPEST} levels deep") from None
    _require_plain(value, any_text)
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"it names {name!r:.60} twice in one object")
        found[name] = value
    return found


def _no_constant(text: str) -> float:
    raise ValueError(f"it holds {text}, which is no number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"it holds {text:.20}, which is larger than any number here")
    return value


def _require_plain(value: Any, any_text: bool) -> None:
    """Raise a ValueError where values are nested too deeply, or texts hold what no name can."""
    level: list[Any] = [value]
    for _ in range(_DEEPEST):
        level = [inner for item in level for inner in _inside(item, any_text)]
        if not level:
            return
    raise ValueError(f"it is nested more than {_DEEPEST} levels deep")


def _inside(item: Any, any_text: bool) -> Iterable[Any]:
    if isinstance(item, dict):
        return (*item, *item.values())
    if isinstance(item, list):
        return item
    if isinstance(item, str) and not any_text:
        if "\0" in item:
            raise ValueError(f"the text {item!r:.60} holds a null byte")
        if not item.isascii():
            try:
                item.encode()
            except UnicodeEncodeError:
                raise ValueError(f"the text {item!r:.60} holds half of a surrogate pair") from None
    return ()
