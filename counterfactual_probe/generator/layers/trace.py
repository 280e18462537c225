"""What runs in a forward: every call of a submodule, with the activations that it takes and gives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .address import Address
from .dimensions.channels import Dimension, FollowedChannels
from .entries import Entry, arguments, entries


@dataclass(frozen=True)
class Seen:
    """An activation as it was in one forward.

    Attributes:
        shape: as it was.
        floating: whether its values are floating-point numbers, one beside the other: others cannot be swapped.
        channels: the dimension of the channels, if it was followed and is known.
        rows: a few numbers for each entry of the first dimension, if these are not the samples: equal rows have
            equal ones.
    """

    shape: tuple[int, ...]
    floating: bool
    channels: Dimension
    rows: Tensor | None


@dataclass
class Trace:
    """Every activation of one forward, in the order in which they were ready; None for an output that is no tensor.

    Attributes:
        first_input: by (submodule, call), the argument that is meant by the input.
        largest: bytes of the largest output.
    """

    samples: int
    seen: dict[Address, Seen | None] = field(default_factory=dict)
    times_run: Counter[str] = field(default_factory=Counter)
    first_input: dict[tuple[str, int], Entry] = field(default_factory=dict)
    largest: int = 1


class Tracing:
    """Hooks that note what every module takes and gives, in the one forward run inside.

    ``follow`` the dimension of the channels through the forward, too.
    """

    def __init__(self, modules: Mapping[str, nn.Module], samples: int, *, follow: bool) -> None:
        self.trace = Trace(samples)
        self._modules = modules
        self._names = {id(part): name for name, part in modules.items()}
        self._started: Counter[str] = Counter()
        self._channels = FollowedChannels() if follow else None

    def run(self, call: Callable[[], Any]) -> Any:
        """What ``call``, which runs one forward, returns."""
        parts = self._modules.values()
        handles = [part.register_forward_pre_hook(self._before, with_kwargs=True) for part in parts]
        handles += [part.register_forward_hook(self._after) for part in parts]
        try:
            with self._channels or nullcontext():
                return call()
        finally:
            for handle in handles:
                handle.remove()

    def __deepcopy__(self, _memo: Any) -> Tracing:
        return self  # a forward that copies a part copies its hooks

    def _before(self, part: nn.Module, given: Any, named: Any) -> None:
        name = self._names.get(id(part))
        if name is None:  # a copy of a part
            return
        self._started[name] += 1
        number = self._started[name]
        for entry, value in arguments((given, named)):
            first = self.trace.first_input.setdefault((name, number), entry) == entry
            self._note(Address(name, number, None if first else entry, is_input=True), value)

    def _after(self, part: nn.Module, _given: Any, output: Any) -> None:
        name = self._names.get(id(part))
        if name is None:
            return
        self.trace.times_run[name] += 1
        number = self.trace.times_run[name]
        self.trace.seen[Address(name, number)] = None
        for entry, value in entries(output):
            self._note(Address(name, number, entry), value)
            self.trace.largest = max(self.trace.largest, value.numel() * value.element_size())

    def _note(self, address: Address, value: Tensor) -> None:
        floating = value.is_floating_point() and value.layout is torch.strided
        is_folded = floating and value.dim() > 1 and len(value) > self.trace.samples and value.numel() > 0
        self.trace.seen[address] = Seen(
            tuple(value.shape),
            floating,
            Dimension() if self._channels is None else self._channels.of(value),
            _summaries(value) if is_folded else None,
        )


def _summaries(value: Tensor) -> Tensor:
    rows = value.detach().reshape(len(value), -1).double()
    return torch.stack([rows.mean(1), rows.abs().mean(1), rows.amin(1), rows.amax(1)], 1)
