"""The 1000 classes of ImageNet by name, from timm's list; nothing is downloaded."""

from __future__ import annotations

import operator
from functools import cache
from typing import Any

from counterfactual_probe.base.errors import ProbeError
from counterfactual_probe.classifiers.labels import class_by_name

N_CLASSES = 1000


def class_index(wanted: Any, n_classes: int = N_CLASSES) -> int:
    """The number of a class, given by its number, one of its names, or a part of its description.

    >>> from counterfactual_probe.adapters.imagenet import class_index, class_name
    >>> class_index("koala"), class_index("teddy bear"), class_index(7)
    (105, 850, 7)
    >>> class_name(7)
    'cock'

    Raises:
        ProbeError: the name is unknown (the message has the nearest) or fits several classes (the message has their
            numbers), or the number is out of range.
    """
    if isinstance(wanted, str):
        if n_classes != N_CLASSES:
            raise ProbeError(
                f"class {wanted!r} is a name of ImageNet's {N_CLASSES} classes and this generator has {n_classes}; "
                f"give a number from 0 to {n_classes - 1}"
            )
        return class_by_name(wanted, _descriptions(), "ImageNet")
    try:
        if isinstance(wanted, bool):
            raise TypeError
        number = operator.index(wanted)
    except TypeError:
        raise ProbeError(
            f"class {wanted!r} is a {type(wanted).__name__}; give a name such as 'koala' or a number from 0 to "
            f"{n_classes - 1}"
        ) from None
    if not 0 <= number < n_classes:
        raise ProbeError(f"class {number} is out of range; give a number from 0 to {n_classes - 1}")
    return number


def class_name(number: int) -> str:
    """The first of a class's names."""
    return _descriptions()[number].split(",")[0]


@cache
def _descriptions() -> tuple[str, ...]:
    try:
        from timm.data.imagenet_info import ImageNetInfo
    except ImportError:
        raise ProbeError(
            'the names of ImageNet\'s classes come from timm; run: pip install "counterfactual-probe[biggan]", or give '
            "classes by number"
        ) from None
    info = ImageNetInfo()
    return tuple(info.index_to_description(number) for number in range(N_CLASSES))
