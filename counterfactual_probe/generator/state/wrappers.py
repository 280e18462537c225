"""Wrappers of torch: known by their type, never by what they answer to an attribute.

A module may hand unknown attributes on to another one, so that ``hasattr(module, "_orig_mod")`` says nothing about it;
and ``functools.wraps`` copies the marks of ``torch.compile`` from one function to another.
"""

from __future__ import annotations

from types import FunctionType, MethodType
from typing import Any

from torch import nn

_PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)
# By these a wrapper comes to its images; set on one itself, they are another's.
_STEPS = ("_call_impl", "_wrapped_call_impl", "scatter", "gather", "replicate", "parallel_apply")
# What a subclass of a wrapper may write anew without a part in the images.
_HARMLESS = {"__init__", "__getattr__", "__setattr__", "__delattr__", "__dir__", "__repr__"}
_HARMLESS |= {"__len__", "__getstate__", "__setstate__", "extra_repr", "train", "eval", "zero_grad", "no_sync"}
_HARMLESS |= {"to", "cuda", "cpu", "half", "float", "double", "state_dict", "load_state_dict"}
_HARMLESS |= {"parameters", "named_parameters", "named_modules", "children"}


def is_compiler(kind: type) -> bool:
    """Whether this is the class of the wrappers of ``torch.compile``."""
    return any(
        each.__name__ == "OptimizedModule" and each.__module__.startswith("torch._dynamo") for each in kind.__mro__
    )


def inside(module: nn.Module) -> nn.Module | None:
    """The module that a wrapper of torch runs and adds nothing to; None if this is no such wrapper."""
    parts = module.__dict__.get("_modules", {})
    compiles = is_compiler(type(module))
    inner: nn.Module | None = parts.get("_orig_mod" if compiles else "module")
    if inner is None or not (compiles or issubclass(type(module), _PARALLEL)):
        return None
    return None if _does_more(module, inner) else inner


def compiled_original(module: nn.Module) -> nn.Module | None:
    """The module that ``torch.compile`` wrapped, if this is its wrapper and adds nothing."""
    return inside(module) if is_compiler(type(module)) else None


def original(module: nn.Module) -> nn.Module:
    """The module itself, out of any wrapper of ``torch.compile``."""
    while (inner := compiled_original(module)) is not None:
        module = inner
    return module


def _does_more(wrapper: nn.Module, inner: nn.Module) -> bool:
    """Whether it has a part of its own in the images: hooks, or methods that torch did not write."""
    own = wrapper.__dict__
    if any(own.get(name) for name in ("_forward_hooks", "_forward_pre_hooks", *_STEPS)):
        return True
    if "forward" in own and not _runs(own["forward"], wrapper, inner):
        return True
    kinds = type(wrapper).__mro__
    of_torch = next(place for place, kind in enumerate(kinds) if _is_of_torch(kind.__module__))
    for kind in kinds[:of_torch]:
        anew = (name for name, value in vars(kind).items() if callable(value) or not name.startswith("__"))
        if any(hasattr(kinds[of_torch], name) for name in anew if name not in _HARMLESS):
            return True
    return not all(_is_by_torch(getattr(kinds[of_torch], name)) for name in ("forward", "__call__"))


def _runs(forward: Any, wrapper: nn.Module, inner: nn.Module) -> bool:
    """Whether a wrapper's forward is the one that ``torch.compile`` has made of this module."""
    if isinstance(forward, MethodType):  # that of modules that are built when they first run
        its_own = getattr(type(wrapper), "_call_lazy_check", None)
        return forward.__func__ is its_own and _runs(wrapper.__dict__.get("_forward"), wrapper, inner)
    if not _is_by_torch(forward):
        return False
    called = forward.__dict__.get("_torchdynamo_orig_callable")
    if isinstance(called, MethodType):
        return called.__self__ is inner and called.__func__ is type(inner).__call__
    return _is_by_torch(called) and getattr(called, "__wrapped__", None) is inner


def _is_by_torch(function: Any) -> bool:
    """Whether torch has written a function, whatever it says of itself."""
    return isinstance(function, FunctionType) and _is_of_torch(str(function.__globals__.get("__name__")))


def _is_of_torch(name: str) -> bool:
    return name.partition(".")[0] == "torch"
