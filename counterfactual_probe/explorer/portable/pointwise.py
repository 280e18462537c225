"""Operations on each number alone, and on two values: their names and parameters for the page."""

from __future__ import annotations

from numbers import Real
from typing import Any

from ...engine.program.operators import arguments
from ...engine.program.program import Op, Ref

# The names of torch, and the parameters that the page's function takes.
_PARAMETERS: dict[str, tuple[str, ...]] = {
    "relu": (),
    "leaky_relu": ("negative_slope",),
    "elu": ("alpha", "scale", "input_scale"),
    "selu": (),
    "gelu": ("approximate",),
    "silu": (),
    "mish": (),
    "sigmoid": (),
    "tanh": (),
    "softplus": ("beta", "threshold"),
    "hardtanh": ("min_val", "max_val"),
    "clamp": ("min", "max"),
    "relu6": (),
    "hardsigmoid": (),
    "hardswish": (),
    "neg": (),
    "abs": (),
    "exp": (),
    "sin": (),
    "cos": (),
    "sqrt": (),
    "rsqrt": (),
    "reciprocal": (),
    "square": (),
}
POINTWISE = frozenset([*_PARAMETERS, *(f"{name}_" for name in _PARAMETERS)])
BINARY = frozenset(["add", "sub", "mul", "div", "pow", "maximum", "minimum"])


def pointwise(op: Op) -> dict[str, Any]:
    name = op.kind.removesuffix("_")
    given = arguments(op)
    return {
        "kind": "pointwise",
        "in": [op.reads[0]],
        "name": name,
        "parameters": [given.get(key) for key in _PARAMETERS[name]],
    }


def binary(op: Op) -> dict[str, Any] | None:
    """None for forms that the page has not, such as a division that rounds."""
    args, alpha = list(op.args), op.kwargs.get("alpha", 1)
    if len(args) != 2 or alpha != 1 or set(op.kwargs) - {"alpha"}:
        return None
    numbers = [float(item) for item in args if isinstance(item, Real)]
    if len(numbers) + sum(isinstance(item, Ref) for item in args) != 2:
        return None
    refs = [item.number if isinstance(item, Ref) else None for item in args]
    return {"kind": "binary", "in": refs, "name": op.kind, "number": numbers[0] if numbers else None}
