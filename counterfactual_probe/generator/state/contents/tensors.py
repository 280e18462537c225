"""Tensors as they were: their values or, of weights, a check of these, and all else that is set on a tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .containers import restore_container


@dataclass
class Holder:
    """A tensor, and what can be restored of it beside its values."""

    value: Tensor
    needs_grad: bool
    grad: Tensor | None
    storage: Tensor  # shares the values
    attributes: dict[str, Any]
    hooks: dict[Any, Any]  # of its gradients

    @classmethod
    def of(cls, value: Tensor) -> Holder:
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
        restore_container(vars(self.value), self.attributes)
        if self.value._backward_hooks is not None:
            restore_container(self.value._backward_hooks, self.hooks)
        return others

    def _has_other_values(self) -> bool:
        """Not the same in another type, in another place or laid out otherwise."""
        if (self.value.dtype, self.value.device) != (self.storage.dtype, self.storage.device):
            return False
        return self.value.shape != self.storage.shape or not torch.equal(self.value.data, self.storage)


def _place(value: Tensor) -> tuple[Any, ...]:
    """Where its values are, and how they are read."""
    return value.data_ptr(), value.dtype, value.shape, value.stride()


def restore_tensor(tensor: Tensor, before: Tensor) -> None:
    if tensor.shape == before.shape and torch.equal(tensor, before):
        return
    # An inference tensor may be written in inference mode only, and any other outside of it.
    with torch.inference_mode(tensor.is_inference()), torch.no_grad():
        if tensor.shape != before.shape:
            tensor.resize_(before.shape)
        tensor.copy_(before)


def is_plain(value: Tensor) -> bool:
    """Whether its values can be read and copied: it has some, dense, and they are in the tensor itself, as in those of
    a subclass that says nothing of how operations are done."""
    kind = type(value)
    has_values = value.device.type != "meta" and value.layout is torch.strided and not nn.parameter.is_lazy(value)
    return has_values and kind.__torch_dispatch__ is Tensor.__torch_dispatch__


def as_plain_tensors() -> Any:
    """Inside, what a subclass of tensors has to say about operations is not asked."""
    disabled: Any = torch._C.DisableTorchFunctionSubclass
    return disabled()


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
