"""Declared shapes: the arrays of a file have the dimensions that they must have, and agree with each other."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_KINDS = {
    "float": "floating-point numbers",
    "count": "integers of at least 0",
    "int": "integers",
    "bool": "true or false",
    "list": "a list",
}


def require_agreement(arrays: Mapping[str, Any], declared: Mapping[str, str]) -> dict[str, Any]:
    """The size of every dimension by name; a ValueError names the first array that is not as declared.

    >>> import numpy as np
    >>> declared = {"maps": "float sets H W", "units": "list sets"}
    >>> require_agreement({"maps": np.zeros((2, 4, 4)), "units": [1, 2]}, declared)
    {'sets': 2, 'H': 4, 'W': 4}
    >>> require_agreement({"maps": np.zeros((2, 4, 4)), "units": [1]}, declared)
    Traceback (most recent call last):
    ValueError: units has 1 for sets and maps has 2

    A declaration is a kind, then a dimension by name, by number, or less a number, as ``rows-2``; ``_`` is of any size,
    and ``size*`` is one or more dimensions together.
    """
    sizes: dict[str, Any] = {}
    first: dict[str, str] = {}
    for name, form in declared.items():
        value = arrays.get(name)
        if value is None:
            continue
        kind, *dimensions = form.split()
        shape = (len(value),) if kind == "list" else tuple(value.shape)
        shape = _together(shape, dimensions)
        if len(shape) != len(dimensions) or not _is_of(kind, value):
            found = f"{getattr(value, 'dtype', type(value).__name__)} {tuple(getattr(value, 'shape', shape))}"
            raise ValueError(f"{name} is {found} and must be {_KINDS[kind]}, ({', '.join(dimensions)})")
        for dimension, size in zip(dimensions, shape, strict=True):
            _bind(name, dimension, size, sizes, first)
    return sizes


def _together(shape: tuple[Any, ...], dimensions: list[str]) -> tuple[Any, ...]:
    """The shape with the dimensions that one declared as ``size*`` stands for as one."""
    at = next((place for place, dimension in enumerate(dimensions) if dimension.endswith("*")), None)
    behind = 0 if at is None else len(dimensions) - at - 1
    if at is None or len(shape) < len(dimensions):
        return shape
    return (*shape[:at], tuple(shape[at : len(shape) - behind]), *shape[len(shape) - behind :])


def _bind(name: str, dimension: str, size: Any, sizes: dict[str, Any], first: dict[str, str]) -> None:
    """Compare a dimension with the others of its name, or remember it as the first."""
    if dimension.endswith("*"):
        if sizes.setdefault(dimension, size) != size:
            one, other = ("×".join(map(str, sides)) for sides in (size, sizes[dimension]))
            raise ValueError(f"{name} has {one} for {dimension[:-1]} and {first[dimension]} has {other}")
        first.setdefault(dimension, name)
        return
    match = re.fullmatch(r"([A-Za-z]\w*)(?:-(\d+))?", dimension)
    if match is None:
        if dimension != "_" and size != int(dimension):
            raise ValueError(f"{name} has {size} where it must have {dimension}")
        return
    whole = size + int(match[2] or 0)
    if sizes.setdefault(match[1], whole) != whole:
        raise ValueError(f"{name} has {size} for {dimension} and {first[match[1]]} has {sizes[match[1]]}")
    first.setdefault(match[1], name)


def _is_of(kind: str, value: Any) -> bool:
    """Whether an array or a list holds values of this kind."""
    if kind == "list":
        return isinstance(value, (list, tuple))
    letter = getattr(value.dtype, "kind", None) or ("f" if value.dtype.is_floating_point else _letter(value))
    if kind in ("float", "bool"):
        return bool(letter == kind[0])
    return letter in "iu" and (kind == "int" or 0 in value.shape or bool(value.min() >= 0))


def _letter(value: Any) -> str:
    """NumPy's letter for a tensor's type that is not floating-point."""
    name = str(value.dtype).removeprefix("torch.")
    return "b" if name == "bool" else "c" if name.startswith("complex") else "i"
