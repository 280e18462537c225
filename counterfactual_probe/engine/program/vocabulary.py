"""What torch's operations do, as torch itself says: by tags and schemas, and by short lists where it says nothing.

One table for the engine, which sees the operations of aten, and for the tracing of kernels, which sees torch's
functions, methods and Python's operators by their names.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch.nn import functional as F

# Pointwise, but not tagged so: they are made of others, or have a parameter for each channel. The second group is
# tagged in later versions of torch than the oldest that is supported.
_UNTAGGED = frozenset(
    [
        *("hardswish", "relu6", "prelu", "rsub", "logsigmoid", "tanhshrink", "softsign"),
        *(
            "leaky_relu",
            "leaky_relu_",
            "elu_",
            "celu_",
            "selu_",
            "hardtanh_",
            "hardsigmoid_",
            "ldexp",
            "rrelu",
            "float_power",
        ),
    ]
)
# Python's operators by the names of the functions behind them.
_OPERATORS = {
    prefix + name: function
    for name, function in {
        "add": "add",
        "sub": "sub",
        "mul": "mul",
        "truediv": "div",
        "div": "div",
        "pow": "pow",
    }.items()
    for prefix in ("", "r", "i")
}

# The same values in the same order of memory, in another shape.
RESHAPES = frozenset(["view", "_unsafe_view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze"])
CONCATENATIONS = frozenset(["cat", "concat", "concatenate"])

# Linear in the first argument, whatever the others are; views of it are as well.
_LINEAR = """
    _unsafe_view clone upsample_nearest2d upsample_bilinear2d upsample_bicubic2d avg_pool2d adaptive_avg_pool2d
    pixel_shuffle pixel_unshuffle channel_shuffle flip roll neg mul div
"""


@cache
def is_pointwise(name: str) -> bool:
    """Whether an operation works on each element alone, wherever it is, such as ``relu``, ``add`` or ``radd``."""
    name = _OPERATORS.get(name, name)
    packet = getattr(torch.ops.aten, name, None) if name.isidentifier() else None
    if name in _UNTAGGED or packet is None:
        return name in _UNTAGGED
    overloads = [getattr(packet, overload) for overload in packet.overloads()]
    reduces = any(item.name == "dim" for overload in overloads for item in overload._schema.arguments)  # max and min
    return not reduces and any(torch.Tag.pointwise in overload.tags for overload in overloads)


@cache
def is_view(operation: Any) -> bool:
    """Whether its one result holds elements of its first argument, and nothing is computed: by the schema.

    Conversions of types, which return their argument if it has the type, are none; nor are strides, which depend
    on how a value is laid out.
    """
    schema = getattr(operation, "_schema", None)
    if schema is None or len(schema.returns) != 1 or schema.name in ("aten::as_strided", "aten::to"):
        return False
    alias = schema.returns[0].alias_info
    first = schema.arguments[0].alias_info if schema.arguments else None
    if alias is None or first is None or alias.is_write or alias.before_set != first.before_set:
        return False
    return str(schema.returns[0].type) == "Tensor" and all(item.name != "dtype" for item in schema.arguments)


@cache
def makes_new_memory(operation: Any) -> bool:
    """Whether, by its schema, its results share no memory with its arguments. Some that are made of others do."""
    schema = getattr(operation, "_schema", None)
    return schema is not None and all(item.alias_info is None for item in schema.returns)


def is_linear(operation: Any, kind: str) -> bool:
    """Whether it is linear in its first argument, whatever the others are."""
    return kind in _LINEAR.split() or is_view(operation)


@cache
def parameters(name: str) -> Mapping[str, Any]:
    """The parameters of a function of torch in order, with their defaults; functions take ``input`` for ``self``."""
    packet = getattr(torch.ops.aten, name, None)
    if packet is None:
        signature = inspect.signature(getattr(F, name))
        empty = inspect.Parameter.empty
        return {key: None if item.default is empty else item.default for key, item in signature.parameters.items()}
    schema = getattr(packet, packet.overloads()[0])._schema
    return {"input" if item.name == "self" else item.name: item.default_value for item in schema.arguments}


def arguments_of(operation: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call of an operation of aten by name, defaults included."""
    schema = operation._schema
    by_name = {item.name: item.default_value for item in schema.arguments if item.has_default_value()}
    return by_name | {item.name: value for item, value in zip(schema.arguments, args, strict=False)} | dict(kwargs)
