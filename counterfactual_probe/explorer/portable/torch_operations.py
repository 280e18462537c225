"""Operations of torch, by the name that torch gives them, as the page takes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...engine.program.program import Ref
from .call import Call, NotPortable, Plain, refs


def _linear(call: Call) -> Plain:
    if call.given["weight"].number not in call.context.constants:
        raise NotPortable("linear with computed weights")
    return {"kind": "linear", "in": refs([call.given["input"], call.given["weight"], call.given["bias"]])}


def _cat(call: Call) -> Plain:
    values = call.given["tensors"]
    if not all(isinstance(item, Ref) for item in values):
        raise NotPortable("cat of numbers")
    return {"kind": "cat", "in": refs(values), "dim": call.given["dim"] % len(call.shape)}


def _nearest(call: Call) -> Plain:
    small, large = call.context.shape(call.given["input"]), call.shape
    if any(many % few for few, many in zip(small[2:], large[2:], strict=True)):
        raise NotPortable("upsampling by a fraction")
    return {"kind": "nearest", "in": [call.given["input"].number]}


def _bilinear(call: Call) -> Plain:
    scales, small, large = call.given.get("scale_factors"), call.context.shape(call.given["input"]), call.shape
    exact = scales is None or all(s * few == many for s, few, many in zip(scales, small[2:], large[2:], strict=True))
    if not exact:
        raise NotPortable("upsampling by a fraction")
    return {"kind": "bilinear", "in": [call.given["input"].number], "corners": bool(call.given["align_corners"])}


def _pixel_shuffle(call: Call) -> Plain:
    return {"kind": "pixelShuffle", "in": [call.read], "factor": call.given["upscale_factor"]}


def _group_norm(call: Call) -> Plain:
    return _norm(call, call.given["num_groups"], "channel")


def _instance_norm(call: Call) -> Plain:
    if not call.given["use_input_stats"]:
        raise NotPortable("instance_norm with fixed statistics")
    return _norm(call, call.shape[1], "channel")


def _layer_norm(call: Call) -> Plain:
    runs = 1
    for size in call.shape[: -len(call.given["normalized_shape"])]:
        runs *= size
    return _norm(call, runs, "place")


def _norm(call: Call, runs: int, each: str) -> Plain:
    total = 1
    for size in call.shape:
        total *= size
    read = refs([call.given["input"], call.given["weight"], call.given["bias"]])
    return {"kind": "norm", "in": read, "span": total // runs, "epsilon": call.given["eps"], "each": each}


def _batch_norm(call: Call) -> Plain:
    raise NotPortable("batch_norm" if call.given["training"] else "batch_norm of vectors")


def _mean(call: Call) -> Plain:
    dims = call.given.get("dim")
    rank = len(call.context.shapes[call.read])
    return {"kind": "mean", "in": [call.read], "dims": [d % rank for d in (dims or range(rank))]}


def _sum(call: Call) -> Plain:
    return _mean(call) | {"sum": True}


def _prelu(call: Call) -> Plain:
    return {"kind": "prelu", "in": call.op.reads}


def _select(call: Call) -> Plain:
    shape = call.context.shapes[call.read]
    dim = call.given["dim"] % len(shape)
    return {"kind": "select", "in": [call.read], "dim": dim, "index": call.given["index"] % shape[dim]}


def _slice(call: Call) -> Plain:
    size = call.context.shape(Ref(call.read))[call.given["dim"]]
    start, _, step = slice(call.given["start"], call.given["end"], call.given["step"]).indices(size)
    return {"kind": "slice", "in": [call.read], "dim": call.given["dim"] % len(call.shape)} | {
        "start": start,
        "step": step,
    }


def _permute(call: Call) -> Plain:
    rank = len(call.shape)
    return {"kind": "permute", "in": [call.read], "dims": [d % rank for d in call.given["dims"]]}


def _transpose(call: Call) -> Plain:
    dims = list(range(len(call.shape)))
    one, two = call.given["dim0"], call.given["dim1"]
    dims[one], dims[two] = dims[two], dims[one]
    return {"kind": "permute", "in": [call.read], "dims": dims}


def _pad(call: Call) -> Plain:
    rank, sizes = len(call.shape), list(call.given["padding" if "padding" in call.given else "pad"])
    if min(sizes) < 0:
        raise NotPortable("padding by less than nothing")
    before = [0] * rank
    for place in range(len(sizes) // 2):
        before[rank - 1 - place] = sizes[2 * place]
    made: Plain = {"in": [call.read], "before": before}
    mode = _PADDINGS.get(call.op.kind) or call.given.get("mode", "constant")
    if mode == "constant":
        return made | {"kind": "pad", "number": call.given["value"] or 0.0}
    return made | {"kind": "padFrom", "mode": mode}


_PADDINGS = {"reflection_pad2d": "reflect", "replication_pad2d": "replicate"}


def _average_pool(call: Call) -> Plain:
    if any(call.given["padding"]) or call.given["ceil_mode"] or call.given["divisor_override"]:
        raise NotPortable("avg_pool2d with padding")
    kernel = _pair(call.given["kernel_size"])
    return {"kind": "averagePool", "in": [call.read], "kernel": kernel, "stride": _pair(call.given["stride"]) or kernel}


def _pair(value: Any) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value) * (2 if len(value) == 1 else 1)


def _matmul(call: Call) -> Plain:
    if any(len(call.context.shapes[number]) < 2 for number in call.op.reads):
        raise NotPortable("a product with a vector")
    return {"kind": "matmul", "in": call.op.reads}


def _softmax(call: Call) -> Plain:
    return {"kind": "softmax", "in": [call.read], "dim": call.given["dim"] % len(call.shape)}


def _attention(call: Call) -> Plain:
    given = call.given
    if (
        given.get("attn_mask") is not None
        or given.get("is_causal")
        or given.get("dropout_p")
        or given.get("enable_gqa")
    ):
        raise NotPortable("attention with a mask, dropout or shared heads")
    heads = {tuple(call.context.shapes[number][:-2]) for number in call.op.reads}
    if len(heads) > 1:
        raise NotPortable("attention of stretched heads")
    scale = given.get("scale")
    scale = call.context.shapes[call.read][-1] ** -0.5 if scale is None else scale
    return {"kind": "attention", "in": call.op.reads, "scale": float(scale)}


def _expand(call: Call) -> Plain:
    return {"kind": "expand", "in": [call.read]}


TORCH_OPERATIONS: dict[str, Callable[[Call], Plain]] = {
    "linear": _linear,
    "cat": _cat,
    "upsample_nearest2d": _nearest,
    "upsample_bilinear2d": _bilinear,
    "pixel_shuffle": _pixel_shuffle,
    "group_norm": _group_norm,
    "instance_norm": _instance_norm,
    "layer_norm": _layer_norm,
    "batch_norm": _batch_norm,
    "mean": _mean,
    "sum": _sum,
    "prelu": _prelu,
    "select": _select,
    "slice": _slice,
    "permute": _permute,
    "transpose": _transpose,
    "constant_pad_nd": _pad,
    "pad": _pad,
    "reflection_pad2d": _pad,
    "replication_pad2d": _pad,
    "matmul": _matmul,
    "bmm": _matmul,
    "softmax": _softmax,
    "_softmax": _softmax,
    "scaled_dot_product_attention": _attention,
    "avg_pool2d": _average_pool,
    "expand": _expand,
}
