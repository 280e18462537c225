"""Wrappers of ``torch.compile``: known by their type, never by what they answer to an attribute.

A module may hand unknown attributes on to another one, so that ``hasattr(module, "_orig_mod")`` says nothing about it.
"""

from __future__ import annotations

from types import FunctionType

from torch import nn


def compiled_original(module: nn.Module) -> nn.Module | None:
    """The module that ``torch.compile`` wrapped, if this is its wrapper."""
    is_wrapper = any(
        kind.__name__ == "OptimizedModule" and kind.__module__.startswith("torch._dynamo")
        for kind in type(module).__mro__
    )
    return module.__dict__["_modules"].get("_orig_mod") if is_wrapper else None


def original(module: nn.Module) -> nn.Module:
    """The module itself, out of any wrapper of ``torch.compile``."""
    while (inner := compiled_original(module)) is not None:
        module = inner
    return module


def has_compiled_parts(module: nn.Module) -> bool:
    return any(compiled_original(part) is not None or _holds_compiled(part) for part in module.modules())


def _holds_compiled(module: nn.Module) -> bool:
    """Whether an attribute is a compiled function, such as in ``module.forward = torch.compile(module.forward)``."""
    functions = (value for value in module.__dict__.values() if isinstance(value, FunctionType))
    return any("_torchdynamo_orig_callable" in function.__dict__ for function in functions)
