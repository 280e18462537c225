"""Writes into parts of tensors as new values: ``out[j] = y`` makes another ``out``, and other views of it follow.

What a forward writes in place is one block of memory, seen through views. In a program every value is made once, so
a write is put back from the view into the whole, as ``torch.select_scatter`` does, and every view that is still
alive is taken again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from ...interception import NotReplayable
from ..program import Ref
from ..vocabulary import RESHAPES, arguments_of

Sizes = tuple[int, ...]
aten = torch.ops.aten


class Emit(Protocol):
    """Adds an operation with one result of this shape; returns its number."""

    def __call__(self, run: Any, args: Sequence[Any], shape: Sizes) -> int: ...


class _Step(NamedTuple):
    """One view: how it is taken of a value, and how a new value of it is put back."""

    run: Any
    args: tuple[Any, ...]  # after the first
    before: Sizes
    after: Sizes
    back: Callable[[int, int], tuple[Any, list[Any]]] | None  # (whole, part) -> operation and arguments


@dataclass(eq=False)
class _Memory:
    """A tensor that is no view; ``number`` is the value that it holds now."""

    number: int


class Aliases:
    """The views among the tensors that are alive in a forward."""

    def __init__(self, numbers: Any, emit: Emit) -> None:
        self._numbers, self._emit = numbers, emit
        self._views: Any = WeakIdKeyDictionary()  # tensor -> its memory, and the steps to it; None: of no known kind

    def note(self, func: Any, args: Sequence[Any], result: Tensor, index: int) -> None:
        """``result`` (the one with this index of several) lies in the memory of the first argument."""
        whole = args[0]
        memory, steps = self._place(whole)
        step = _step(func, args, result, index)
        self._views[result] = (memory, None if steps is None or step is None else (*steps, step))

    def are_related(self, one: Tensor, two: Tensor) -> bool:
        """Whether both are known views of the same memory."""
        (memory, steps), (other, others) = self._place(one), self._place(two)
        return memory is other and None not in (steps, others)

    def memory_of(self, tensor: Tensor) -> int:
        """The value that the whole memory of a tensor holds."""
        return self._place(tensor)[0].number

    def write(self, written: Tensor) -> None:
        """The tensor has a new value: update the memory that it is a view of, and all other views."""
        memory, steps = self._place(written)
        value = self._numbers[written]
        for depth in reversed(range(len(steps or ()))):
            whole = self._taken(memory.number, steps[:depth])
            value = self._put_back(whole, value, steps[depth])
        memory.number = value
        for other, (of_other, to_other) in list(self._views.items()):
            if of_other is memory and other is not written and to_other is not None:
                self._numbers[other] = self._taken(memory.number, to_other)

    def _place(self, tensor: Tensor) -> tuple[_Memory, Any]:
        if tensor not in self._views:
            self._views[tensor] = (_Memory(self._numbers[tensor]), ())
        memory, steps = self._views[tensor]
        if steps == ():
            memory.number = self._numbers[tensor]
        return memory, steps

    def _taken(self, number: int, steps: Sequence[_Step]) -> int:
        for step in steps:
            number = self._emit(step.run, (Ref(number), *step.args), step.after)
        return number

    def _put_back(self, whole: int, part: int, step: _Step) -> int:
        if step.back is None:
            raise NotReplayable(f"the forward writes into what {step.run} gives")
        run, args = step.back(whole, part)
        return self._emit(run, args, step.before)


def _step(func: Any, args: Sequence[Any], result: Tensor, index: int) -> _Step | None:
    """The view in an invertible form; None for kinds that cannot be inverted."""
    kind, whole = func.overloadpacket.__name__, args[0]
    before, after = tuple(whole.shape), tuple(result.shape)
    given = arguments_of(func, args, {})
    if kind in RESHAPES | {"view_as", "reshape_as", "ravel", "alias", "detach"}:
        return _Step(aten.reshape.default, (list(after),), before, after, _reshaped_back(before))
    if kind in ("transpose", "swapaxes", "swapdims", "t"):
        dims = (0, 1) if kind == "t" else tuple(args[1:3])
        return _Step(aten.transpose.int, dims, before, after, _permuted_back(aten.transpose.int, dims))
    if kind == "permute":
        order = [dim % len(before) for dim in given["dims"]]
        back = [order.index(dim) for dim in range(len(order))]
        return _Step(aten.permute.default, (order,), before, after, _permuted_back(aten.permute.default, (back,)))
    if kind in ("select", "unbind"):
        place = given["index"] if kind == "select" else index
        return _part(aten.select.int, aten.select_scatter.default, (given["dim"], place), before, after)
    cut = _cut(kind, given, before, after, index)
    return None if cut is None else _part(aten.slice.Tensor, aten.slice_scatter.default, cut, before, after)


def _cut(kind: str, given: dict[str, Any], before: Sizes, after: Sizes, index: int) -> tuple[Any, ...] | None:
    """The dimension, start, end and step of a view that is a slice."""
    if kind == "slice":
        return given["dim"], given["start"], given["end"], given["step"]
    if kind == "narrow":
        return given["dim"], given["start"], given["start"] + given["length"], 1
    if kind not in ("split", "split_with_sizes", "chunk"):
        return None
    dim, sizes = given["dim"], given.get("split_size", given.get("split_sizes", 0))
    if kind == "chunk":
        sizes = -(-before[dim] // given["chunks"])
    start = sizes * index if isinstance(sizes, int) else sum(sizes[:index])
    return dim, start, start + after[dim], 1


def _part(run: Any, scatter: Any, place: tuple[Any, ...], before: Sizes, after: Sizes) -> _Step:
    return _Step(run, place, before, after, lambda whole, part: (scatter, [Ref(whole), Ref(part), *place]))


def _reshaped_back(shape: Sizes) -> Callable[[int, int], tuple[Any, list[Any]]]:
    return lambda _, part: (aten.reshape.default, [Ref(part), list(shape)])


def _permuted_back(run: Any, dims: tuple[Any, ...]) -> Callable[[int, int], tuple[Any, list[Any]]]:
    return lambda _, part: (run, [Ref(part), *dims])
