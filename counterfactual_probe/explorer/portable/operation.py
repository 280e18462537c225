"""One operation of a program as the page's interpreter takes it: a kind, what it reads and makes, and numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ...engine.program.operators import Affine, Convolution, Edit, arguments
from ...engine.program.polyphase import PolyphaseConvolution
from ...engine.program.program import Op
from ...engine.program.vocabulary import RESHAPES
from .call import Call, Context, NotPortable, Plain, refs
from .pointwise import BINARY, POINTWISE, binary, pointwise
from .torch_operations import TORCH_OPERATIONS


def plain_operations(op: Op, context: Context) -> Iterator[Plain]:
    """The operation as one or several of the interpreter's; raises :class:`NotPortable`."""
    if op.kind in _SPLITS:
        yield from _split(op, context)
        return
    if len(op.outs) != 1 or op.outs[0] is None:
        raise NotPortable(op.kind)
    made = _one(op, context)
    yield made | {"out": op.out, "shape": context.shapes[op.out]}


def _one(op: Op, context: Context) -> Plain:
    for kind, describe in _OWN.items():
        if isinstance(op.run, kind):
            return describe(op, context)
    if op.kind in POINTWISE:
        return pointwise(op)
    if op.kind in BINARY and (made := binary(op)) is not None:
        return made
    if op.kind in RESHAPES or op.kind in _SAME or _is_idle_dropout(op):
        return {"kind": "reshape", "in": [op.reads[0]]}
    if op.kind not in TORCH_OPERATIONS or not hasattr(op.run, "_schema"):
        raise NotPortable(op.kind)
    return TORCH_OPERATIONS[op.kind](Call(op, context))


_SAME = frozenset(["clone", "contiguous", "detach", "alias", "lift_fresh"])


def _is_idle_dropout(op: Op) -> bool:
    return op.kind.endswith("dropout") and arguments(op).get("train") is False


def _edit(op: Op, context: Context) -> Plain:
    run: Edit = op.run  # type: ignore[assignment]
    shape = context.shapes[op.out]
    if len(shape) != 4 or run.info.axes not in (None, "n c h w") or shape[1] != run.info.channels:
        raise NotPortable(f"layer {run.layer}, whose activations are no images with channels first")
    return {"kind": "edit", "layer": run.layer, "in": [op.reads[0]]}


def _convolution(op: Op, _: Context) -> Plain:
    run: Convolution = op.run  # type: ignore[assignment]
    return {
        "kind": "convolution",
        "in": refs(op.args),
        "stride": list(run.stride),
        "padding": list(run.padding),
        "dilation": list(run.dilation),
        "groups": run.groups,
        "transposed": run.transposed,
    }


def _polyphase(op: Op, _: Context) -> Plain:
    run: PolyphaseConvolution = op.run  # type: ignore[assignment]
    about = {"factor": run.factor, "starts": list(run.starts), "taps": run.taps}
    return {"kind": "polyphase", "in": refs(op.args), **about}


def _affine(op: Op, _: Context) -> Plain:
    return {"kind": "affine", "in": refs(op.args)}


# The operations that programs are simplified to.
_OWN: dict[type, Callable[[Op, Context], Plain]] = {
    Edit: _edit,
    Convolution: _convolution,
    PolyphaseConvolution: _polyphase,
    Affine: _affine,
}


_SPLITS = frozenset(["split", "split_with_sizes", "chunk"])


def _split(op: Op, context: Context) -> Iterator[Plain]:
    """A slice for each part that is read."""
    given = arguments(op)
    dim, start = given["dim"], 0
    for out in op.outs:
        if out is None:
            raise NotPortable(op.kind)
        shape = context.shapes[out]
        about = {"dim": dim % len(shape), "start": start, "step": 1}
        yield {"kind": "slice", "in": [op.reads[0]], "out": out, "shape": shape, **about}
        start += shape[dim]
