"""Values of options, checked while the command line is read: a mistake costs no import of torch, and no run."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable


def whole(least: int) -> Callable[[str], int]:
    """A parser of whole numbers from ``least`` up.

    >>> whole(1)("3")
    3
    """

    def parsed(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or value < least:
            raise argparse.ArgumentTypeError(f"it is {text!r}; give a whole number from {least} up")
        return value

    return parsed


count, natural = whole(1), whole(0)


def number(text: str) -> float:
    """A finite number."""
    value = _float(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"it is {text!r}; give a number")
    return value


def positive(text: str) -> float:
    """A finite number above 0."""
    value = _float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"it is {text!r}; give a number above 0")
    return value


def names(text: str) -> list[str]:
    """Names separated by commas."""
    found = [name.strip() for name in text.split(",")]
    if not all(found):
        raise argparse.ArgumentTypeError(f"it is {text!r}; give names separated by commas, such as main.5,main.8")
    return found


def class_of(text: str) -> int | str:
    """A class by its number, or by its name.

    >>> class_of("3"), class_of("koala")
    (3, 'koala')
    """
    return int(text) if text.isdecimal() else text


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
