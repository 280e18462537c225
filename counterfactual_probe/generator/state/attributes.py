"""Undo whatever a forward leaves on the module: counters, caches, hooks, buffers; refuse what cannot be undone."""

from __future__ import annotations

import random
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary, WeakSet, WeakValueDictionary

import numpy as np
import torch
from torch import Tensor, nn

from ...base.errors import ProbeError
from .reachable import Container, Random, Reachable, reachable

_MISSING = object()


@contextmanager
def attributes_kept(module: nn.Module) -> Iterator[Reachable]:
    """Yields everything reachable from the module, and restores all of it at the end.

    Raises:
        ModuleChanged: at the end, if a forward changed values of a parameter, since these are too large to copy; and if
            it put others in their place, as a flow does that sets its norms from the first batch.
    """
    everything = reachable(module)
    snapshot = _Snapshot.of(everything)
    try:
        yield everything
    except ProbeError as error:
        _refuse(module, snapshot.restore(), error)  # a forward that changes weights fails in many ways
        raise
    except BaseException:
        snapshot.restore()
        raise
    else:
        _refuse(module, snapshot.restore())


class ModuleChanged(ProbeError):
    """A forward changed weights, which cannot be restored, so no other executor may be tried after it."""


def _refuse(module: nn.Module, changed: Sequence[Tensor], cause: ProbeError | None = None) -> None:
    if not changed:
        return
    names = [name for name, value in module.named_parameters() if any(value is other for other in changed)]
    raise ModuleChanged(
        f"the forward of {type(module).__name__} changes its parameter {(names or ['(unnamed)'])[0]!r}; make it a "
        "function of latents and weights (a counter belongs into a buffer or an attribute, which are put back), "
        "and load the weights again; if it sets them from the first batch that it sees, run it on one before"
    ) from cause


@dataclass
class _Holder:
    """A tensor, and what can be restored of it beside its values."""

    value: Tensor
    needs_grad: bool
    grad: Tensor | None
    storage: Tensor  # shares the values
    attributes: dict[str, Any]
    hooks: dict[Any, Any]  # of its gradients

    @classmethod
    def of(cls, value: Tensor) -> _Holder:
        attributes, hooks = dict(vars(value)), dict(value._backward_hooks or {})
        grad = value.grad if value.is_leaf else None
        return cls(value, value.requires_grad, grad, value.data, attributes, hooks)

    def restore(self) -> bool:
        """Restore all but values, of which there is no copy; tells whether others were put in their place."""
        exchanged = _place(self.value) != _place(self.storage)
        others = exchanged and self._has_other_values()
        if exchanged:  # `.data = …`: the old values are still there
            self.value.data = self.storage
        if self.value.is_leaf:
            if self.value.requires_grad != self.needs_grad:
                self.value.requires_grad_(self.needs_grad)
            if self.value.grad is not self.grad:
                self.value.grad = self.grad
        _restore_container(vars(self.value), self.attributes)
        if self.value._backward_hooks is not None:
            _restore_container(self.value._backward_hooks, self.hooks)
        return others

    def _has_other_values(self) -> bool:
        """Not the same in another type, in another place or laid out otherwise."""
        if (self.value.dtype, self.value.device) != (self.storage.dtype, self.storage.device):
            return False
        return self.value.shape != self.storage.shape or not torch.equal(self.value.data, self.storage)


def _place(value: Tensor) -> tuple[Any, ...]:
    """Where its values are, and how they are read."""
    return value.data_ptr(), value.dtype, value.shape, value.stride()


@dataclass
class _Snapshot:
    kinds: list[tuple[nn.Module, type[nn.Module]]]
    containers: list[tuple[Container, Any]]
    slots: list[tuple[Any, str, Any]]
    tensors: list[tuple[_Holder, Tensor]]
    sparse: list[tuple[Tensor, Tensor, int]]  # which get new indices and values, and where the old values are
    arrays: list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]
    generators: list[tuple[Random, Any]]
    weights: list[_Holder]
    checksums: list[tuple[Any, ...]]

    @classmethod
    def of(cls, everything: Reachable) -> _Snapshot:
        with _as_plain_tensors():
            return cls._of(everything)

    @classmethod
    def _of(cls, everything: Reachable) -> _Snapshot:
        tensors = [value for value in everything.tensors if _is_plain(value)]
        weights = [value for value in tensors if isinstance(value, nn.Parameter)]
        others = [value for value in tensors if not isinstance(value, nn.Parameter)]
        return cls(
            kinds=[(part, type(part)) for part in everything.modules],
            containers=[(item, _copy(item)) for item in everything.containers],
            slots=[(item, name, getattr(item, name, _MISSING)) for item, name in everything.slotted],
            tensors=[(_Holder.of(value), value.detach().clone()) for value in others],
            sparse=[
                (value, value.data, value._values().data_ptr())
                for value in everything.tensors
                if value.layout is torch.sparse_coo
            ],
            arrays=[(value, value.copy()) for value in everything.arrays if value.flags.writeable],
            generators=[(item, _random_state(item)) for item in everything.generators],
            weights=[_Holder.of(value) for value in weights],
            checksums=checksums(weights),
        )

    def restore(self) -> list[Tensor]:
        """Restore everything; returns the parameters whose values a forward changed."""
        with _as_plain_tensors():
            return self._restore()

    def _restore(self) -> list[Tensor]:
        for part, kind in self.kinds:
            if type(part) is not kind:
                part.__class__ = kind
        for item, before in self.containers:
            _restore_container(item, before)
        for item, name, value in self.slots:
            _restore_slot(item, name, value)
        for numbers, before in self.arrays:
            if numbers.tobytes() != before.tobytes():
                numbers[...] = before
        for generator, state in self.generators:
            _set_random_state(generator, state)
        for tensor, storage, place in self.sparse:
            if tensor._values().data_ptr() != place:
                tensor.data = storage
        for holder, before in self.tensors:
            holder.restore()
            _restore_tensor(holder.value, before)
        exchanged = [weight.restore() for weight in self.weights]
        values = [weight.value for weight in self.weights]
        now = checksums(values)
        changed = [one != two for one, two in zip(now, self.checksums, strict=True)]
        return [value for value, *either in zip(values, changed, exchanged, strict=True) if any(either)]


def _as_plain_tensors() -> Any:
    """Inside, what a subclass of tensors has to say about operations is not asked."""
    disabled: Any = torch._C.DisableTorchFunctionSubclass
    return disabled()


def _copy(item: Container) -> Any:
    """By the built-in type: a subclass may copy otherwise, or refuse to."""
    if isinstance(item, (dict, WeakKeyDictionary, WeakValueDictionary)):
        return dict(item)  # entries of weak ones live on until they are put back
    return item[:] if isinstance(item, (bytearray, array)) else list(item)


def _restore_container(item: Container, before: Any) -> None:
    if _is_same(item, before):
        return
    if isinstance(item, dict):
        # By the built-in type, since a subclass may refuse; an OrderedDict keeps an order of its own beside the dict's.
        kind = OrderedDict if isinstance(item, OrderedDict) else dict
        kind.clear(item)
        for key, value in before.items():
            kind.__setitem__(item, key, value)
    elif isinstance(item, (set, WeakSet, WeakKeyDictionary, WeakValueDictionary)):
        item.clear()
        item.update(before)
    elif isinstance(item, (bytearray, array)):
        item[:] = before  # of the same length, this works while others look into it
    else:
        item.clear()
        item.extend(before)


def _is_same(item: Container, before: Any) -> bool:
    """The same objects in the same order."""
    if isinstance(item, (bytearray, array)):
        return bool(item == before)
    if len(item) != len(before):
        return False
    if isinstance(item, (dict, WeakKeyDictionary, WeakValueDictionary)):
        entries = zip(item.items(), before.items(), strict=True)
        return all(one[0] is two[0] and one[1] is two[1] for one, two in entries)
    return all(one is two for one, two in zip(item, before, strict=True))


def _random_state(item: Random) -> Any:
    if isinstance(item, torch.Generator):
        return item.get_state()
    if isinstance(item, np.random.BitGenerator):
        return item.state
    if isinstance(item, np.random.Generator):
        return item.bit_generator.state
    return item.get_state(legacy=False) if isinstance(item, np.random.RandomState) else item.getstate()


def _set_random_state(item: Random, state: Any) -> None:
    if isinstance(item, np.random.BitGenerator):
        item.state = state
    elif isinstance(item, np.random.Generator):
        item.bit_generator.state = state
    elif isinstance(item, random.Random):
        item.setstate(state)
    else:
        item.set_state(state)


def _restore_slot(item: Any, name: str, value: Any) -> None:
    now = getattr(item, name, _MISSING)
    if now is value:
        return
    if value is _MISSING:
        delattr(item, name)
    else:
        object.__setattr__(item, name, value)


def _restore_tensor(tensor: Tensor, before: Tensor) -> None:
    if tensor.shape == before.shape and torch.equal(tensor, before):
        return
    # An inference tensor may be written in inference mode only, and any other outside of it.
    with torch.inference_mode(tensor.is_inference()), torch.no_grad():
        if tensor.shape != before.shape:
            tensor.resize_(before.shape)
        tensor.copy_(before)


def _is_plain(value: Tensor) -> bool:
    """Whether its values can be read and copied: it has some, dense, and they are in the tensor itself, as in those of
    a subclass that says nothing of how operations are done."""
    kind = type(value)
    has_values = value.device.type != "meta" and value.layout is torch.strided and not nn.parameter.is_lazy(value)
    return has_values and kind.__torch_dispatch__ is Tensor.__torch_dispatch__


def _words(value: Tensor) -> Tensor:
    """The bits of a tensor as integers: where it can be, eight bytes at a time, which are added up without a copy."""
    value = torch.view_as_real(value) if value.is_complex() else value
    in_memory = value.permute(sorted(range(value.dim()), key=value.stride, reverse=True))
    start, length = value.storage_offset() * value.element_size(), value.numel() * value.element_size()
    if in_memory.is_contiguous() and start % 8 == length % 8 == 0:
        return in_memory.reshape(-1).view(torch.int64)
    return value.view(_BITS[value.element_size()]) if value.dtype is not torch.bool else value


_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def checksums(values: Sequence[Tensor]) -> list[tuple[Any, ...]]:
    """One for each tensor, which changes when its values do: in-place operations count up its version, and the sum of
    its bits knows of what is written through ``.data``."""
    sums: dict[torch.device, list[Tensor]] = {}
    for value in values:
        sums.setdefault(value.device, []).append(_words(value.detach()).sum(dtype=torch.int64))
    # One transfer for each device, not one for each tensor.
    by_device = {device: iter(torch.stack(of_device).tolist()) for device, of_device in sums.items()}
    return [(None if value.is_inference() else value._version, next(by_device[value.device])) for value in values]
