"""A forward as a list of tensor operations: each reads values by number and makes new ones.

Sizes that depend on the number of samples are kept as a function of it, so that one program serves
every batch size.

Why not ``torch.fx.Graph``: hybrids never run the program as it is, but paths of it on which a value has up to three
forms and is freed or overwritten; what a graph would bring (dead code, replacement, printing) is some fifty lines
here, and sizes that depend on the batch would need nodes of their own. Measured on a sampler of 680 operations (and
a DCGAN of 14): the graph and its module take 46 ms (2.9) beside the 174 (27) of recording and the 41 (10) of
simplifying; clean runs of one sample take 8.2 ms (7.4) by its generated code, 14.3 (7.1) by its interpreter and
12.3 (6.4) here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

from torch import Tensor

from ...generator.layers import Address


class Ref(NamedTuple):
    """The value with this number."""

    number: int


class Size(NamedTuple):
    """``each`` · samples + ``more``: an integer that depends on the number of samples."""

    each: int
    more: int

    def at(self, samples: int) -> int:
        return self.each * samples + self.more


@dataclass(frozen=True)
class Op:
    """One operation: ``run(*args, **kwargs)`` makes the values ``outs`` (None: no tensor).

    Attributes:
        single: it returns one tensor, and not a tuple.
        elementwise: each element of the result is a function of the same element of the first argument, the only
            tensor read, and has its type.
        new_memory: results of an operation of torch share no memory with what is read.
    """

    run: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    outs: tuple[int | None, ...]
    single: bool = True
    elementwise: bool = False
    new_memory: bool = False

    @property
    def kind(self) -> str:
        """What it computes, such as ``relu``; the same for all overloads."""
        packet = getattr(self.run, "overloadpacket", None)
        return packet.__name__ if packet is not None else getattr(self.run, "kind", "")

    @property
    def fresh(self) -> bool:
        """Whether results share no memory with what is read."""
        return self.new_memory or getattr(self.run, "fresh", False)

    @property
    def out(self) -> int:
        (number,) = self.outs
        if number is None:
            raise ValueError(f"{self.kind} makes no tensor")
        return number

    @property
    def reads(self) -> list[int]:
        return list(self._read)

    @cached_property
    def _read(self) -> tuple[int, ...]:
        """Asked for many times, whenever values are followed through a program."""
        return tuple(leaf.number for leaf in leaves((self.args, self.kwargs)) if isinstance(leaf, Ref))

    def reading(self, renamed: Mapping[int, int]) -> Op:
        """The same operation on other values."""

        def rename(leaf: Any) -> Any:
            return Ref(renamed.get(leaf.number, leaf.number)) if isinstance(leaf, Ref) else leaf

        return replace(self, args=map_leaves(self.args, rename), kwargs=map_leaves(dict(self.kwargs), rename))

    def __call__(self, values: Mapping[int, Tensor], samples: int) -> Any:
        def resolve(leaf: Any) -> Any:
            if isinstance(leaf, Ref):
                return values[leaf.number]
            return leaf.at(samples) if isinstance(leaf, Size) else leaf

        return self.run(*[map_leaves(item, resolve) for item in self.args], **map_leaves(dict(self.kwargs), resolve))


@dataclass
class Program:
    """Operations in order, from the latents to the image.

    Attributes:
        inputs: numbers of the latents' tensors.
        image: number of the images.
        shapes: of every value, with :class:`Size` where it depends on the number of samples.
        constants: values that no latent decides and that no operation makes, such as parameters.
        layers: where an activation stands -> its number, and how many operations come before it is handed on.
        draws: what makes the noise of one sample, in the order of the forward.
    """

    ops: list[Op]
    inputs: tuple[int, ...]
    image: int
    shapes: dict[int, tuple[Any, ...]]
    constants: dict[int, Tensor]
    layers: dict[Address, tuple[int, int]] = field(default_factory=dict)
    draws: list[Draw] = field(default_factory=list)

    def per_sample(self, number: int) -> bool:
        """Whether the first dimension of a value is the sample, and no other depends on it."""
        shape = self.shapes[number]
        return bool(shape) and shape[0] == Size(1, 0) and not any(isinstance(size, Size) for size in shape[1:])

    def size(self, number: int, samples: int) -> list[int]:
        """The shape of a value for so many samples."""
        return [size.at(samples) if isinstance(size, Size) else size for size in self.shapes[number]]

    def reached(self, numbers: Iterable[int]) -> frozenset[int]:
        """These values and all that are computed from them."""
        reached = set(numbers)
        for op in self.ops:
            if reached.intersection(op.reads):
                reached.update(number for number in op.outs if number is not None)
        return frozenset(reached)


def leaves(structure: Any) -> Iterator[Any]:
    """Everything inside nested lists, tuples and dicts; a Ref or a Size is one leaf."""
    if isinstance(structure, (Ref, Size)):
        yield structure
    elif isinstance(structure, (list, tuple)):
        for item in structure:
            yield from leaves(item)
    elif isinstance(structure, dict):
        for item in structure.values():
            yield from leaves(item)
    else:
        yield structure


def map_leaves(structure: Any, function: Callable[[Any], Any]) -> Any:
    """The same structure with ``function`` applied to every leaf."""
    if isinstance(structure, (Ref, Size)):
        return function(structure)
    if isinstance(structure, (list, tuple)):
        return type(structure)([map_leaves(item, function) for item in structure])
    if isinstance(structure, dict):
        return {key: map_leaves(item, function) for key, item in structure.items()}
    return function(structure)


def outputs(op: Op, result: Any) -> Iterator[tuple[int, Tensor]]:
    """The numbered tensors that an operation returned."""
    for number, value in zip(op.outs, leaves(result), strict=True):
        if number is not None and isinstance(value, Tensor):
            yield number, value


@dataclass(frozen=True)
class Draw:
    """Noise of one sample: ``op`` reads at most ``blank``, in place of the value that it makes."""

    op: Op
    blank: Tensor

    def __call__(self) -> Tensor:
        return self.op({self.op.out: self.blank.clone()}, 1)  # type: ignore[no-any-return]
