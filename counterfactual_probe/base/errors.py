"""The one error family of the library, and what its sentences are made with."""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any, TypeVar

T = TypeVar("T")
_BRIEF = 80  # characters of a value in an error

# Control characters but tab and line feed; marks that reverse the direction of what follows; bytes of file names that
# are no text.
_INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    r"""Text from outside as it may be printed or shown on a page: what drives a terminal is shown by its number.

    >>> print(visible("\x1b[2Jmain.8\u202e"))
    \x1b[2Jmain.8\u202e
    """
    return _INVISIBLE.sub(lambda match: ascii(match.group())[1:-1], text)


_LONGEST = 400  # characters of another library's message


class ProbeError(Exception):
    """Something the caller can put right; the message is one sentence that says how.

    Whatever names it quotes, printing it does not drive the terminal.
    """

    def __str__(self) -> str:
        return visible(super().__str__())


class Interrupted(ProbeError, KeyboardInterrupt):
    """Ctrl-C during a run: everything has been put back, and nothing was half written.

    Both a ``ProbeError`` and a ``KeyboardInterrupt``, so that either handler sees it.
    """


def nearest(name: str, known: Iterable[str], limit: int = 3) -> str:
    """The names closest to a mistyped one, quoted, for the end of an error sentence."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=limit, cutoff=0.3) or names[:limit]
    return ", ".join(repr(candidate) for candidate in close) or "none"


def described(error: BaseException) -> str:
    """An exception in brief, for a result that says why something else was done instead."""
    return f"{type(error).__name__} ({str(error)[:120]})"


def first_line(error: BaseException) -> str:
    """The first line of another library's message, or its type, to quote in a sentence of ours; long ones are cut."""
    try:
        message = str(error)
    except Exception:  # whatever an exception of another package does to print itself
        message = ""
    line = (message.strip().splitlines() or [type(error).__name__])[0]
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"


def number(value: Any, what: str) -> float:
    """Any real number, NumPy's too, as Python's."""
    if not isinstance(value, Real):
        raise ProbeError(f"{what} is {brief(value)}; give a number")
    return float(value)


def share(value: Any, what: str) -> float:
    """A number above 0, up to 1, NumPy's too."""
    if not isinstance(value, Real) or not 0 < float(value) <= 1:
        raise ProbeError(f"{what} is {brief(value)}; give a number above 0, up to 1")
    return float(value)


def level(value: Any, what: str) -> float:
    """A number between 0 and 1, and neither of them, such as the confidence of an interval."""
    if not isinstance(value, Real) or not 0 < float(value) < 1:
        raise ProbeError(f"{what} is {brief(value)}; give a number between 0 and 1, such as 0.95")
    return float(value)


def text(value: Any, what: str) -> str:
    """A string."""
    if not isinstance(value, str):
        raise ProbeError(f"{what} is {brief(value)}; give a string")
    return value


def one_of(value: Any, what: str, known: Sequence[str]) -> str:
    """A string out of a few."""
    if not isinstance(value, str) or value not in known:
        names = " or ".join(map(repr, known)) if len(known) == 2 else f"one of {', '.join(map(repr, known))}"
        raise ProbeError(f"{what} is {brief(value)}; give {names}")
    return value


def strings(value: Any, what: str) -> list[str]:
    """Several names: anything that can be iterated over but is no string itself, each as a string."""
    try:
        names = None if isinstance(value, (str, bytes)) else list(map(str, value))
    except Exception:  # a TypeError, or what an object of the user's raises
        names = None
    if names is None:
        raise ProbeError(f"{what} are {brief(value)}; give a list of strings")
    return names


def required(value: Any, kind: type[T], what: str, cure: str) -> T:
    """A value of this type."""
    if not isinstance(value, kind):
        raise ProbeError(f"{what} is a {type(value).__name__}; {cure}")
    return value


def brief(value: Any) -> str:
    """A value in an error: its repr, or what it is where that is long."""
    shown = repr(value)
    return shown if len(shown) <= _BRIEF and "\n" not in shown else f"a {type(value).__name__}"


def first_few(names: Sequence[str], limit: int = 5) -> str:
    """The first of many names, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"{', '.join(names[:limit])}{more}"


def whole(value: Any, what: str, least: int) -> int:
    """An integer argument, NumPy's too, as Python's: the only one that every later step takes."""
    try:
        number = operator.index(value)
    except Exception:  # a TypeError, or what an object of the user's raises
        number = least - 1
    if number < least:
        raise ProbeError(f"{what} is {brief(value)}; give an integer of at least {least}")
    return number
