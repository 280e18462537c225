"""Which dimension of an activation holds the channels: known from operations that say so, and followed from there.

A convolution puts channels into dimension 1 and a linear map into the last; additions, activation functions, views
and permutations carry them on. So the output of a block that ends in a sum is known as well. What no such operation
leads to is not known.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

_SECOND = {f"conv{of}{n}d" for of in ("", "_transpose") for n in (1, 2, 3)} | {
    "batch_norm",
    "group_norm",
    "instance_norm",
    "pixel_shuffle",
    "pixel_unshuffle",
}
_LAST = {"linear", "layer_norm", "rms_norm", "embedding", "multi_head_attention_forward"}
# Whatever they read, channels are last in it and in what they make.
_RECURRENT = {"lstm", "gru", "rnn_tanh", "rnn_relu"}
# Sums over products: where the channels of a result are depends on which factor they come from.
_PRODUCTS = {"matmul", "__matmul__", "__rmatmul__", "bmm", "mm", "baddbmm"}
# Too free in what they do with dimensions.
_UNKNOWN = {"einsum", "tensordot", "kron", "outer", "cdist", "gather", "scatter", "unfold", "fold"}
_RESHAPES = {"reshape", "view", "flatten", "unflatten", "reshape_as", "view_as", "_unsafe_view"}


@dataclass
class Dimension:
    """The number of a dimension, or None as long as it is not known."""

    number: int | None = None


class FollowedChannels(TorchFunctionMode):
    """A mode that follows the dimension of the channels through the operations inside it.

    >>> from torch import nn, randn
    >>> with FollowedChannels() as channels:
    ...     x = nn.Conv2d(3, 8, 1)(randn(2, 3, 4, 4)).permute(0, 2, 3, 1)
    >>> channels.of(x).number
    3
    """

    def __init__(self) -> None:
        super().__init__()
        self._dims: Any = WeakIdKeyDictionary()
        self._asked: Any = WeakIdKeyDictionary()

    def of(self, value: Tensor) -> Dimension:
        """The dimension of a value's channels; what reads the value later may still tell it."""
        asked: Dimension = self._asked.setdefault(value, Dimension())
        asked.number = self._dims.get(value)
        return asked

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        # A tensor of a kind of its own may refuse to be looked at: its channels stay unknown.
        with suppress(Exception):
            self._follow(getattr(func, "__name__", ""), args, kwargs or {}, result)
        return result

    def _follow(self, name: str, args: Any, kwargs: Any, result: Any) -> None:
        name = name if name.endswith("__") else name.removesuffix("_")
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        known = [one for one in given if one in self._dims]
        if name == "layer_norm" and len(args[1] if len(args) > 1 else kwargs["normalized_shape"]) > 1:
            name = ""  # over positions, too
        if given and given[0] not in self._dims and given[0].dim() > 2 and name in _SECOND | _LAST | _RECURRENT:
            self._know(given[0], _said_by(name, given[0]))  # what a convolution reads has its channels there, too
        for made in tree_leaves(result):
            if not isinstance(made, Tensor) or made.dim() < 2 or any(made is one for one in known):
                continue
            place = self._place(name, given, made)
            if place is not None:
                self._know(made, place)

    def _know(self, value: Tensor, place: int) -> None:
        self._dims[value] = place
        if value in self._asked:
            self._asked[value].number = place

    def _place(self, name: str, given: list[Tensor], made: Tensor) -> int | None:
        if name in _SECOND | _RECURRENT:
            return _said_by(name, made)
        if name in _LAST:
            # A linear map of positions, as in an MLP-Mixer, leaves the channels where they are.
            place = self._dims.get(given[0])
            elsewhere = place is not None and place < given[0].dim() - 1 and made.dim() == given[0].dim()
            return place if elsewhere else _said_by(name, made)
        if name in _UNKNOWN:
            return None
        if name in _PRODUCTS:
            return self._of_product(given, made)
        places = (_carried(name, one, self._dims[one], made) for one in _like_first(given, made) if one in self._dims)
        return next((place for place in places if place is not None), None)

    def _of_product(self, given: list[Tensor], made: Tensor) -> int | None:
        """The last dimension of a product is the second factor's, the others the first's."""
        first, second = given[-2:]
        place = self._dims.get(second)
        if place is not None and place == second.dim() - 1:
            return made.dim() - 1
        place = self._dims.get(first)
        return place if place is not None and place != first.dim() - 1 and first.dim() == made.dim() else None


def _said_by(name: str, value: Tensor) -> int:
    """Where an operation says that the channels of what it reads and makes are."""
    return 1 if name in _SECOND else value.dim() - 1


def _like_first(given: list[Tensor], made: Tensor) -> Iterator[Tensor]:
    """Those of the result's shape before the others: a sum has the channels of its terms, not of a mask."""
    yield from sorted(given, key=lambda one: one.shape != made.shape)


def _carried(name: str, value: Tensor, place: int, made: Tensor) -> int | None:
    """Where the channels of a value stand in what was made of it; None where that cannot be told."""
    if value.shape[place] == 1:
        return _of_one(value, place, made)
    if name in _RESHAPES:
        return _by_sizes(value, place, made)
    if _is_view(value, made):
        return _by_stride(value, place, made)
    return place if made.dim() == value.dim() else None


def _is_view(value: Tensor, made: Tensor) -> bool:
    return made.untyped_storage().data_ptr() == value.untyped_storage().data_ptr()


def _by_stride(value: Tensor, place: int, made: Tensor) -> int | None:
    """A view moves a dimension with its stride; of several with that stride, the one of that size."""
    size, stride = value.shape[place], value.stride(place)
    same = [d for d in range(made.dim()) if made.stride(d) == stride and made.shape[d] > 1]
    same = [d for d in same if made.shape[d] == size] or same
    if len(same) > 1 and place in same and made.dim() == value.dim():
        return place
    return same[0] if len(same) == 1 else None


def _of_one(value: Tensor, place: int, made: Tensor) -> int | None:
    """A single channel is all of the values, whichever dimension of size 1 it is; a stride says nothing of it."""
    if made.dim() == value.dim() and (made.shape[place] == 1 or made.numel() != value.numel()):
        return place
    ones = [d for d in range(1, made.dim()) if made.shape[d] == 1]
    return ones[0] if ones and made.numel() == value.numel() else None


def _by_sizes(value: Tensor, place: int, made: Tensor) -> int | None:
    """A reshaped value keeps a dimension whole where as much lies before it.

    One that is split is not kept: a linear map makes channels and positions in one, and nothing tells their order.
    """
    before = prod(value.shape[:place])
    places = [d for d in range(made.dim()) if made.shape[d] == value.shape[place] and prod(made.shape[:d]) == before]
    return places[0] if len(places) == 1 else None
