"""A stand-in for a GPU: tensors that say they are on one, and are computed on the CPU.

It computes real values, and refuses what a GPU refuses: operations on tensors of two devices, NumPy's view of its
tensors, random numbers of another device's generator. It counts what a GPU would have to be waited for: each value
that Python reads off it. What it cannot show is how a GPU rounds, how fast it is, and how kernels fail.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

DEVICE = torch.device("cuda", 0)
_BYTES = 8 * 2**30  # that are free on it
_PROPERTIES = SimpleNamespace(total_memory=_BYTES, major=9, minor=0, multi_processor_count=132)

# What makes Python wait for a value.
_READS = {"item", "tolist", "__bool__", "__float__", "__int__", "__index__", "__contains__", "is_nonzero"}
_READS |= {"equal", "allclose", "nonzero", "argwhere", "unique", "unique_consecutive", "masked_select", "isin"}
# What brings values of Python there, for which it waits as well.
_FROM_PYTHON = {"tensor", "as_tensor", "asarray"}
_RANDOM = {"rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "bernoulli", "dropout"}
_RANDOM |= {"normal_", "uniform_", "bernoulli_", "random_", "multinomial", "normal", "dropout_", "feature_dropout"}
_MOVES = {"copy_", "type_as", "__set__", "_has_compatible_shallow_copy_type"}


class StandIn(TorchFunctionMode):
    """While entered, the device "cuda:0" exists, and is made of the CPU.

    >>> with StandIn() as gpu:
    ...     print((torch.ones(2, device="cuda") + 1).device, gpu.reads.total())
    cuda:0 0

    Attributes:
        reads: how often Python has waited for a value, by operation.
        is_lost: whether it was taken away: everything that is asked of it raises from then on.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reads: Counter[str] = Counter()
        self.seed, self.offset = 0, 0
        self.is_lost = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = _name(func)
        if name == "__get__":
            return self._attribute(func, args, kwargs)
        if name in ("numpy", "__array__", "__dlpack__") and is_there(args[0]):
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor")
        if name == "pin_memory":
            return args[0]
        if name in ("to", "cpu", "cuda") and isinstance(args[0], Tensor):
            return self._moved(name, args, kwargs)
        given = list(_tensors((args, kwargs)))
        if self.is_lost and any(map(is_there, given)):
            raise RuntimeError("CUDA error: unspecified launch failure")
        there = [value for value in given if is_there(value)]
        if there and name not in _MOVES:
            _require_one_device(name, args, given)
        if there and (name in _READS or (name in ("__getitem__", "__setitem__") and _has_mask(args[1]))):
            self.reads[name] += 1
        target = self._named(kwargs)
        if target and name in _FROM_PYTHON:
            self.reads[name] += 1
        is_made_there = bool(there) and name not in ("copy_", "type_as") if target is None else target
        if name in ("copy_", "type_as"):
            is_made_there = is_there(args[name == "type_as"])
        if is_made_there and name in _RANDOM:
            return _marked(self._random(func, args, kwargs))
        result = func(*args, **kwargs)
        return _marked(result) if is_made_there else result

    def _named(self, kwargs: dict[str, Any]) -> bool | None:
        """Whether the device that is named is this one; None if none is."""
        if kwargs.get("device") is None:
            return None
        if torch.device(kwargs["device"]).type != "cuda":
            return False
        if torch.device(kwargs["device"]).index not in (None, 0):
            raise RuntimeError("CUDA error: invalid device ordinal")
        kwargs["device"] = "cpu"
        return True

    def _attribute(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        value, attribute = args[0], func.__self__.__name__
        if isinstance(value, Tensor) and attribute in ("device", "is_cuda", "is_cpu") and is_there(value):
            return DEVICE if attribute == "device" else attribute == "is_cuda"
        result = func(*args, **kwargs)
        return _marked(result) if isinstance(result, Tensor) and is_there(value) else result

    def _moved(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        value, *rest = args
        was = is_there(value)
        if self.is_lost and was:
            raise RuntimeError("CUDA error: unspecified launch failure")
        target: bool | None
        if name != "to":
            target, rest = name == "cuda", ["cpu"]
            kwargs = {key: item for key, item in kwargs.items() if key == "memory_format"}
        elif rest and isinstance(rest[0], Tensor):
            target = is_there(rest[0])
        elif rest and isinstance(rest[0], str | torch.device | int):
            target = self._named({"device": rest[0]} if not isinstance(rest[0], int) else {"device": f"cuda:{rest[0]}"})
            rest[0] = "cpu"
        else:
            target = self._named(kwargs)
        result: Tensor = value.to(*rest, **kwargs)
        if target is None or target == was:
            return _marked(result) if was else result  # type: ignore[no-any-return]
        if not kwargs.get("non_blocking"):
            self.reads["cpu" if was else "cuda"] += 1
        if result.untyped_storage() is value.untyped_storage():
            result = result.clone()
        return _marked(result) if target else result  # type: ignore[no-any-return]

    def _random(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """From this device's own numbers: a seed, and how many were drawn."""
        if kwargs.get("generator") is not None:
            raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed((self.seed * 1_000_003 + self.offset) % 2**63)
            before = torch.get_rng_state()
            result = func(*args, **kwargs)
            self.offset += 4 * (not torch.equal(before, torch.get_rng_state()))  # dropout may draw nothing
            return result

    # --- what torch.cuda says of it -----------------------------------------------------------------

    def get_rng_state(self, _device: Any = None) -> Tensor:
        return torch.tensor([self.seed % 2**63, self.offset], dtype=torch.int64, device="cpu").view(torch.uint8)

    def set_rng_state(self, state: Tensor, _device: Any = None) -> None:
        self.seed, self.offset = state.view(torch.int64).tolist()

    def manual_seed(self, seed: int) -> None:
        self.seed, self.offset = seed, 0

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Let ``torch.cuda`` answer for it."""
        answers: dict[str, Any] = {
            "is_available": True,
            "is_initialized": True,
            "device_count": 1,
            "current_device": 0,
            "synchronize": None,
            "get_device_name": "a stand-in",
            "get_device_capability": (9, 0),
            "is_bf16_supported": True,
            "mem_get_info": (_BYTES, _BYTES),
            "current_stream": None,
        }
        for name, answer in answers.items():
            patch.setattr(torch.cuda, name, lambda *_, _answer=answer, **__: _answer)
        for name in ("get_rng_state", "set_rng_state", "manual_seed"):
            patch.setattr(torch.cuda, name, getattr(self, name))
        patch.setattr(torch.cuda, "manual_seed_all", self.manual_seed)
        patch.setattr(torch.cuda, "device", _no_context)
        patch.setattr(torch.cuda, "Event", _Event)
        patch.setattr(torch.cuda, "get_device_properties", lambda _: _PROPERTIES)


class _Event:
    """Has always happened."""

    def record(self, _stream: Any) -> None: ...

    def synchronize(self) -> None: ...


def _no_context(_device: Any) -> AbstractContextManager[None]:
    return nullcontext()


def is_there(value: Any) -> bool:
    """Whether a tensor is on the stand-in: its memory says so, which views share."""
    if not isinstance(value, Tensor) or value.layout is not torch.strided or value.is_meta:
        return False
    return getattr(value.untyped_storage(), "is_of_the_stand_in", False)


def _marked(result: Any) -> Any:
    for value in _tensors(result):
        if value.layout is torch.strided:
            value.untyped_storage().is_of_the_stand_in = True  # type: ignore[attr-defined]
    return result


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def _name(func: Any) -> str:
    """Of a method or function; of an operation of ATen without namespace and overload."""
    name: str = getattr(func, "__name__", str(func))
    return name.partition(".")[0] if isinstance(func, torch._ops.OpOverload) else name


def _has_mask(index: Any) -> bool:
    return any(value.dtype is torch.bool for value in _tensors(index))


def _is_list(index: Any) -> bool:
    """Whether an index lists places, so that values are put there one by one."""
    items = index if isinstance(index, tuple) else (index,)
    return any(isinstance(item, Tensor | list) for item in items)


def _require_one_device(name: str, args: tuple[Any, ...], given: list[Tensor]) -> None:
    """Raise what a GPU's operations raise when a tensor, other than a single number, is on the CPU."""
    if name == "__getitem__" and is_there(args[0]):
        return  # which indices may lie elsewhere
    if name == "__setitem__":
        if not _is_list(args[1]):
            return  # a copy, which goes from any device to any
        given = [args[0], *_tensors(args[2:])]
    elsewhere = [value for value in given if not is_there(value) and value.dim()]
    if elsewhere:
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! ({name})"
        )
