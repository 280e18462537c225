"""Noise that a forward draws: which operations draw it, and how to draw it again for one sample."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...interception import NotReplayable
from ..program import Draw, Op, Ref, leaves

# The result depends on the shape of the first argument, not on its values.
_SHAPED = {"rand_like", "randn_like", "randint_like", "normal_", "uniform_", "bernoulli_", "exponential_", "random_"}
_MADE = {"rand", "randn", "randint", "normal"}
# These multiply their argument by noise.
_MASKS = {"dropout", "dropout_", "feature_dropout", "feature_dropout_"}


def is_mask(func: Any) -> bool:
    """Whether an operation multiplies its first argument by noise."""
    return func.overloadpacket.__name__ in _MASKS


def draw_of(func: Any, args: list[Any], kwargs: dict[str, Any], out: int, result: Tensor) -> Draw:
    """How to draw again what ``func`` drew, as value ``out``; NotReplayable if it depends on other values."""
    kind = func.overloadpacket.__name__
    if kind in _SHAPED | _MASKS:
        args = [Ref(out), *args[1:]]
    elif kind not in _MADE:
        raise NotReplayable(f"the forward draws noise with {func}")
    if any(isinstance(leaf, Ref) and leaf.number != out for leaf in leaves((args, kwargs))):
        raise NotReplayable(f"the noise that {func} draws depends on other values")
    if not result.dim():
        raise NotReplayable("the forward draws noise that is not one for each sample")
    return Draw(Op(func, tuple(args), kwargs, (out,)), torch.ones_like(result[:1]))
