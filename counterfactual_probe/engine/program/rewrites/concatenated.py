"""Convolutions of an enlarged image beside another one, as where a U-Net goes up: each part by itself.

A convolution of a concatenation is the sum of those of its parts, and what works on each channel, or on groups of
channels that lie in one part, works on each part. So pixels are repeated after all that and not before: norms and
activations take a quarter of the work on an image enlarged by 2, the convolution half of it in polyphase form. A
hybrid whose other part no edit reaches does not compute it at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..operators import Affine, Convolution, arguments
from ..program import Op, Ref, Size, leaves
from ..rewriting import Rewriting, kernel_layout
from ..vocabulary import CONCATENATIONS
from .enlarging import keeps_size, of_repeated, repeats


@dataclass(frozen=True)
class _Part:
    """A part of a value's channels: from ``first`` on, in an image whose pixels ``repeating`` would repeat, if any."""

    number: int
    first: int
    channels: int
    repeating: Op | None

    def of(self, per_channel: Any, work: Rewriting) -> Any:
        """This part's of a constant that has one value for each channel, along the dimension that has so many."""
        value = work.constant(per_channel)
        if value is None or value.numel() == 1:
            return per_channel
        dim = 0 if value.dim() == 1 else 1
        return self.cut(per_channel, dim, work)

    def cut(self, item: Ref, dim: int, work: Rewriting) -> Ref:
        """A constant's part along a dimension of all channels."""

        def made() -> Ref:
            part = work.constants[item.number].narrow(dim, self.first, self.channels)
            return work.add_constant(part.clone(memory_format=kernel_layout(part)))

        return work.once(("part", item, dim, self.first, self.channels), made)


def concatenated_convolutions(work: Rewriting) -> None:
    """Rewrite concatenations of two images, one of them enlarged, that only convolutions read in the end."""
    makers = work.makers()
    readers: dict[int, list[Op]] = {}
    for op in work.ops:
        for number in set(op.reads):
            readers.setdefault(number, []).append(op)
    new: dict[int | None, list[Op]] = {}
    for op in work.ops:
        parts = _parts(work, makers, op)
        reading = None if parts is None else _readers(work, readers, op.out, parts)
        if parts is not None and reading:
            divided = {op.out: parts}
            new[op.out] = []
            for reader in reading:
                new[reader.out] = list(_divided(work, reader, divided))
    if new:
        work.each(lambda op: new.get(op.outs[0], [op]))
        work.drop_unused()


def _parts(work: Rewriting, makers: dict[int, Op], op: Op) -> list[_Part] | None:
    """The parts of a concatenation of two images along their channels, one of them enlarged; otherwise None."""
    if op.kind not in CONCATENATIONS or len(work.shapes[op.out]) != 4 or arguments(op).get("dim", 0) % 4 != 1:
        return None
    if len(op.reads) != 2 or op.reads[0] == op.reads[1]:
        return None
    parts, first = [], 0
    for number in op.reads:
        maker, channels = makers.get(number), work.shapes[number][1]
        repeating = maker if maker is not None and repeats(work, maker) is not None else None
        parts.append(_Part(number if repeating is None else repeating.reads[0], first, channels, repeating))
        first += channels
    return parts if sum(part.repeating is not None for part in parts) == 1 else None


def _readers(work: Rewriting, readers: dict[int, list[Op]], number: int, parts: list[_Part]) -> list[Op] | None:
    """All operations between a concatenation and the convolutions, these included; None if anything else reads it."""
    if number == work.image:
        return None
    found: list[Op] = []
    for op in readers.get(number, []):
        weight = work.kernel(op)
        if weight is not None:
            if op.reads[0] != number or not keeps_size(op, weight):
                return None
            found.append(op)
            continue
        if not _is_by_channel(work, op, parts):
            return None
        further = _readers(work, readers, op.out, parts)
        if further is None:
            return None
        found += [op, *further]
    return found


def _is_by_channel(work: Rewriting, op: Op, parts: list[_Part]) -> bool:
    """Whether an operation makes channels of each part from those of this part, the same for all pixels alike."""
    if isinstance(op.run, Affine):
        return all(item is None or work.constant(item) is not None for item in op.args[1:])
    if op.kind == "group_norm":
        given = arguments(op)
        each = sum(part.channels for part in parts) // given["num_groups"]
        fixed = all(given[name] is None or work.constant(given[name]) is not None for name in ("weight", "bias"))
        return fixed and all(part.channels % each == 0 for part in parts)
    return op.elementwise and not any(isinstance(leaf, Size) for leaf in leaves((op.args, dict(op.kwargs))))


def _divided(work: Rewriting, op: Op, divided: dict[int, list[_Part]]) -> Iterator[Op]:
    """The operation on each part; a convolution's results are added up."""
    parts = divided[op.reads[0]]
    if isinstance(op.run, Convolution):
        yield from _convolution(work, op, parts)
        return
    made = []
    for part in parts:
        samples, _, *size = work.shapes[part.number]
        number = work.number((samples, part.channels, *size))
        args, kwargs = _arguments(work, op, part)
        yield replace(op, args=args, kwargs=kwargs, outs=(number,))
        made.append(replace(part, number=number))
    divided[op.out] = made


def _arguments(work: Rewriting, op: Op, part: _Part) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    if isinstance(op.run, Affine):
        return (Ref(part.number), *(part.of(item, work) for item in op.args[1:])), {}
    if op.kind != "group_norm":
        return (Ref(part.number), *op.args[1:]), op.kwargs
    given = arguments(op)
    groups = given["num_groups"] * part.channels // work.shapes[op.reads[0]][1]
    weight, bias = (part.of(given[name], work) for name in ("weight", "bias"))
    return (Ref(part.number), groups, weight, bias, given["eps"], given["cudnn_enabled"]), {}


def _convolution(work: Rewriting, op: Op, parts: list[_Part]) -> Iterator[Op]:
    bias, terms = op.args[2], list[Ref]()
    for part in sorted(parts, key=lambda one: one.repeating is not None):  # the enlarged one is added to the other
        number = work.number(work.shapes[op.out])
        kernel = part.cut(op.args[1], 1, work)
        one = replace(op, args=(Ref(part.number), kernel, None if terms else bias), outs=(number,))
        terms.append(Ref(number))
        yield from [one] if part.repeating is None else of_repeated(work, part.repeating, part.number, one)
    yield Op(torch.ops.aten.add.Tensor, tuple(terms), {}, op.outs, new_memory=True)
