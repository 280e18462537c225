"""Axes of an activation: which dimension holds the samples, which the channels, as in ``"n h w c"``.

Dimensions are written in order and apart by spaces, as in einops: ``n`` for the samples, ``c`` for the channels and
any other word for a position. ``(2 n)`` is one dimension that two others were folded into, the last of them running
fastest; a number is the size of one that is not named. ``...`` stands for any others.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from math import prod
from typing import TypeAlias

from torch import Tensor

from ....base.errors import ProbeError

Part: TypeAlias = "str | int"

SAMPLES, CHANNELS, OTHERS = "n", "c", "..."
_GROUP = re.compile(r"\(([^()]*)\)|(\S+)")
_EXAMPLES = 'such as "n h w c" or "(2 n) c h w"'


@dataclass(frozen=True)
class Axes:
    """The dimensions of a tensor, each of one part or of several that are folded into it.

    >>> str(parse("n h w c"))
    'n h w c'

    Attributes:
        dims: the parts of each dimension: words, and sizes.
        sizes: of the words in folded dimensions, once they are known.
    """

    dims: tuple[tuple[Part, ...], ...]
    sizes: tuple[tuple[str, int], ...] = ()

    def __str__(self) -> str:
        return " ".join(str(dim[0]) if len(dim) == 1 else f"({' '.join(map(str, dim))})" for dim in self.dims)

    @property
    def fold(self) -> int | None:
        """The place, among positions, of the number that the samples are folded with; None where there is none."""
        place = 0
        for dim in self.dims:
            for part in dim:
                if isinstance(part, int) and SAMPLES in dim:
                    return place
                place += part not in (SAMPLES, CHANNELS)
        return None

    def bound(self, shape: Sequence[int], samples: int) -> Axes:
        """The same for tensors like one of this shape, with every size but that of samples known.

        Raises:
            ValueError: what does not fit, as the end of a sentence.
        """
        dims = _spelled_out(self.dims, len(shape))
        if len(dims) != len(shape):
            raise ValueError(f"axes {str(self)!r} have {len(dims)} dimensions")
        sizes: dict[str, int] = {}
        for dim, size in zip(dims, shape, strict=True):
            unknown = [part for part in dim if isinstance(part, str) and part != SAMPLES]
            known = prod(part for part in dim if isinstance(part, int)) * (samples if SAMPLES in dim else 1)
            if len(unknown) > 1 or size % known or (not unknown and size != known):
                given = f"({' '.join(map(str, dim))})" if len(dim) > 1 else str(dim[0])
                raise ValueError(f"{size} is no {given} of axes {str(self)!r}")
            sizes.update(dict.fromkeys(unknown, size // known))
        return replace(self, dims=dims, sizes=tuple(sizes.items()))

    def sized(self, channels: int, size: Sequence[int]) -> Axes:
        """The same with the sizes of channels and positions known, positions in the order in which they stand."""
        others = [part for part in self._parts if part not in (SAMPLES, CHANNELS)]
        words = {word: number for word, number in zip(others, size, strict=True) if isinstance(word, str)}
        return replace(self, sizes=tuple({**words, CHANNELS: channels}.items()))

    @property
    def channel_dim(self) -> int:
        """The dimension of the channels among those of the activation."""
        return next(place for place, dim in enumerate(self.dims) if CHANNELS in dim)

    @property
    def is_channels_first(self) -> bool:
        """Whether they are samples, channels and then positions."""
        return self._order is None

    @cached_property
    def channels_and_size(self) -> tuple[int, tuple[int, ...]]:
        """Number of channels, and the sizes of the positions of one."""
        sizes = dict(self.sizes)
        return sizes[CHANNELS], tuple(
            part if isinstance(part, int) else sizes[part] for part in self._parts if part not in (SAMPLES, CHANNELS)
        )

    def channels_first(self, activation: Tensor) -> Tensor:
        """A view of shape (samples, channels, …), whatever the axes: writing to it writes to the activation."""
        if self._order is None:
            return activation
        for place in reversed(self._folded):
            activation = activation.unflatten(place, self._unfolded(self.dims[place]))  # type: ignore[no-untyped-call]
        return activation.permute(self._order)

    def as_before(self, view: Tensor) -> Tensor:
        """A tensor of the form of :meth:`channels_first` back in these axes."""
        if self._order is None:
            return view
        back = sorted(range(len(self._order)), key=self._order.__getitem__)
        activation = view.permute(back)
        for place, dim in enumerate(self.dims):
            if len(dim) > 1:
                activation = activation.flatten(place, place + len(dim) - 1)
        return activation

    @cached_property
    def _parts(self) -> list[Part]:
        return [part for dim in self.dims for part in dim]

    @cached_property
    def _folded(self) -> list[int]:
        return [place for place, dim in enumerate(self.dims) if len(dim) > 1]

    @cached_property
    def _order(self) -> list[int] | None:
        """The parts in the order samples, channels, others; None if they are in that order."""
        first = [self._parts.index(SAMPLES), self._parts.index(CHANNELS)]
        order = first + [place for place in range(len(self._parts)) if place not in first]
        return None if not self._folded and order == sorted(order) else order

    def _unfolded(self, dim: tuple[Part, ...]) -> list[int]:
        sizes = {**dict(self.sizes), SAMPLES: -1}
        return [part if isinstance(part, int) else sizes[part] for part in dim]


@cache
def parse(text: str) -> Axes:
    """Axes from their text.

    Raises:
        ProbeError: no text of axes.
    """
    groups = [match.groups() for match in _GROUP.finditer(text)] if isinstance(text, str) else []
    dims = tuple(
        tuple(int(part) if part.isdecimal() else part for part in (several.split() if several is not None else [one]))
        for several, one in groups
    )
    parts = [part for dim in dims for part in dim]
    words = [part for part in parts if isinstance(part, str)]
    legal = all(dims) and 0 not in parts and all(word == OTHERS or word.isidentifier() for word in words)
    legal = legal and (OTHERS not in words or (OTHERS,) in dims)
    if not legal or words.count(SAMPLES) != 1 or words.count(CHANNELS) != 1 or len(set(words)) < len(words):
        raise ProbeError(
            f"axes are {text!r}; name every dimension once, with n for the samples and c for the channels, {_EXAMPLES}"
        )
    return Axes(dims)


def standing(dims: int, samples: tuple[Part, ...] = (SAMPLES,), channels: int | None = None, *, place: int = 0) -> Axes:
    """The axes of an activation of so many dimensions, of which that at ``place`` holds the samples, folded or not.

    ``channels`` is the dimension of the channels. Where it is not known it is 1, and the last for tokens N×T×D
    (conventions 1).
    """
    if channels is None:
        channels = 2 if dims == 3 else 1
    others = [dim for dim in range(dims) if dim not in (place, channels)]
    words = dict(zip(others, _words(len(others)), strict=True))
    return Axes(tuple(samples if dim == place else (words.get(dim, CHANNELS),) for dim in range(dims)))


def _words(count: int) -> list[str]:
    usual = {0: [], 1: ["t"], 2: ["h", "w"], 3: ["d", "h", "w"]}
    return usual.get(count) or [f"p{number}" for number in range(count)]


def _spelled_out(dims: tuple[tuple[Part, ...], ...], wanted: int) -> tuple[tuple[Part, ...], ...]:
    """The dimensions with words for those that ``...`` stands for."""
    if (OTHERS,) not in dims:
        return dims
    place = dims.index((OTHERS,))
    words = tuple((f"p{number}",) for number in range(max(0, wanted - len(dims) + 1)))
    return (*dims[:place], *words, *dims[place + 1 :])
