"""Classes of a classifier by number or by name."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from ..base.errors import ProbeError, nearest


def class_number(wanted: Any, names: Sequence[str] | None, n_classes: int, who: str) -> int:
    """The number of a class, given by its number, one of its names, or a part of its description.

    A name may have synonyms, separated by commas, as in ImageNet: "koala, koala bear, kangaroo bear".
    """
    if isinstance(wanted, str):
        if names is None:
            raise ProbeError(
                f"class {wanted!r} is a name and the classes of {who} have none; give a number from 0 to "
                f"{n_classes - 1}, or give the classifier class_names"
            )
        return class_by_name(wanted, names, who)
    try:
        if isinstance(wanted, bool):
            raise TypeError
        number = operator.index(wanted)
    except TypeError:
        raise ProbeError(f"class {wanted!r} is a {type(wanted).__name__}; give a class's number or name") from None
    if not 0 <= number < n_classes:
        raise ProbeError(f"class {number} is not one of the {n_classes} of {who}; give 0 to {n_classes - 1}")
    return number


def short_name(number: int, names: Sequence[str] | None) -> str:
    """The first of a class's names, or its number."""
    return str(number) if names is None else names[number].split(",")[0].strip()


def class_by_name(wanted: str, names: Sequence[str], who: str) -> int:
    """The number of the only class with this name or, if none has it, with this text in its description."""
    synonyms = [[part.strip().lower() for part in name.split(",")] for name in names]
    text = wanted.strip().lower()
    matches = [number for number, parts in enumerate(synonyms) if text in parts]
    if not matches and text:
        matches = [number for number, name in enumerate(names) if text in name.lower()]
    if len(matches) == 1:
        return matches[0]
    if matches:
        several = ", ".join(f"{number} ({names[number]})" for number in matches[:5]) + ", …" * (len(matches) > 5)
        raise ProbeError(f"class {wanted!r} fits {len(matches)} classes of {who}: {several}; give one's number")
    close = nearest(text, dict.fromkeys(part for parts in synonyms for part in parts))
    raise ProbeError(f"class {wanted!r} is none of the {len(names)} classes of {who}; nearest: {close}")
