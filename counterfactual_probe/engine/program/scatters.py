"""Read parts from where they were written, so that a tensor that is only written and read in parts is never built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .operators import arguments
from .program import Op

Shapes = Mapping[int, tuple[Any, ...]]


def through_writes(ops: Sequence[Op], shapes: Shapes) -> tuple[list[Op], dict[int, int]]:
    """The operations with reads of written parts redirected to their sources, and which values are others by now.

    Operations that nothing reads any more stay in; dropping them is left to the caller.
    """
    makers: dict[int | None, Op] = {}
    renamed: dict[int, int] = {}
    result = []
    for original in ops:
        op = original.reading(renamed) if renamed.keys() & set(original.reads) else original
        if op.kind in ("select", "slice"):
            whole, part = _source(op, makers, shapes)
            if part is not None:
                renamed[op.out] = part
            elif whole != op.reads[0]:
                op = op.reading({op.reads[0]: whole})
        makers.update((number, op) for number in op.outs)
        result.append(op)
    return result, renamed


def _source(op: Op, makers: Mapping[int | None, Op], shapes: Shapes) -> tuple[int, int | None]:
    """The earliest value with the same content at this place, and the value that was written there, if any."""
    whole, wanted = op.reads[0], _place(op, shapes)
    while (maker := makers.get(whole)) is not None and wanted is not None:
        if op.kind == "select" and maker.kind == "stack" and wanted[0] == arguments(maker)["dim"]:
            return whole, maker.reads[wanted[1]]
        if maker.kind != f"{op.kind}_scatter":
            break
        written = _place(maker, shapes)
        if written == wanted:
            return whole, maker.reads[1]
        if written is None or not _are_apart(written, wanted):
            break
        whole = maker.reads[0]
    return whole, None


def _place(op: Op, shapes: Shapes) -> tuple[int, ...] | None:
    """The dimension and the indices along it, none negative; None if they depend on the number of samples."""
    given, shape = arguments(op), shapes[op.reads[0]]
    dim = given["dim"] % len(shape)
    length = shape[dim]
    if not isinstance(length, int):
        return None
    if op.kind.startswith("select"):
        return (dim, given["index"] % length) if isinstance(given["index"], int) else None
    bounds = [0 if given["start"] is None else given["start"], length if given["end"] is None else given["end"]]
    if not all(isinstance(bound, int) for bound in bounds):
        return None
    start, end = (max(0, min(bound + length if bound < 0 else bound, length)) for bound in bounds)
    return dim, start, end, given["step"]


def _are_apart(one: tuple[int, ...], two: tuple[int, ...]) -> bool:
    if one[0] != two[0]:
        return False
    return one[1] != two[1] if len(one) == 2 else one[2] <= two[1] or two[2] <= one[1]
