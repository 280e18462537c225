"""Reads of values that torch's dispatcher does not see: a forward that looks at them may go any way.

A copy of a tensor with all its memory (``copy.deepcopy``, as of a scheduler for every run) is one as well. Of a value
that every run has, it is another such value, whatever torch does to make it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

# They hand out a tensor's memory, or what is in it.
_COPY = "__deepcopy__"
_OUT_OF_TORCH = {_COPY, "numpy", "tolist", "data_ptr", "storage", "untyped_storage"}
_OUT_OF_TORCH |= {"__array__", "__dlpack__", "__cuda_array_interface__"}
# Made of others, and so without the tag that these have.
_SHAPED_BY_VALUES = (
    torch.ops.aten.nonzero_numpy.default,
    torch.ops.aten.where.default,
    torch.ops.aten.repeat_interleave.self_Tensor,
)


class OutOfTorch(TorchFunctionMode):
    """Calls ``refuse`` with a reason when a tensor of which ``matters`` is true is read without an operation."""

    def __init__(self, matters: Callable[[Tensor], bool], refuse: Callable[[str], None]) -> None:
        super().__init__()
        self._matters, self._refuse = matters, refuse

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        name = getattr(getattr(func, "__self__", None), "__name__", "") if name == "__get__" else name
        if name in _OUT_OF_TORCH and args and isinstance(args[0], Tensor) and self._matters(args[0]):
            self._refuse(f"the forward reads values with {name}")
        if name == _COPY:
            with torch._C._DisableTorchDispatch():
                return func(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def has_shape_of_values(func: Any, args: Any) -> bool:
    """Whether the shape of what an operation makes depends on values, which a forward may then branch on."""
    if func in _SHAPED_BY_VALUES:
        return True
    if func is torch.ops.aten.index.Tensor:
        return any(item is not None and item.dtype in (torch.bool, torch.uint8) for item in args[1])
    return torch.Tag.dynamic_output_shape in func.tags
