"""What a replay needs to know of a generator: which calls can be answered from a record, and who reads them.

Found by running the forward, never by reading its code: once to see what runs when, and once more
with the answers in place to see which of them are read, and by whom.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ...generator.adapter import GeneratorAdapter
from ...generator.layers import Address, Site, entries
from ..interception import Call, Invocation, NotReplayable, Observer, intercepted, map_tensors, storage_of, tensors_of

TRACED = 2  # samples in the traced forward


@dataclass(frozen=True)
class Plan:
    """Which calls are answered from the record when intervening on some layers."""

    answered: Mapping[Call, Any]  # outermost calls that finish by the first layer -> NaNs of their form
    kept: frozenset[Call]  # those whose output something else reads
    made: Mapping[str, Sequence[int]]  # for each submodule the calls still made, in order
    sites: Mapping[Call, Sequence[Site | None]]  # of the tensors in the output of a call that is kept


@dataclass
class _Event:
    start: int
    end: int
    parent: Call | None


def make_plan(generator: GeneratorAdapter, layers: Sequence[str]) -> Plan:
    """Trace one forward, then run it again with answers to see which of them are read."""
    events, outputs = _trace(generator)
    addresses = {layer: generator.site(layer).address for layer in layers}
    if unseen := [layer for layer, address in addresses.items() if address.made_by not in events]:
        raise NotReplayable(f"{unseen[0]} was not seen to run")
    # An input is edited before its call is made, which therefore is made again.
    cut = min(
        events[address.made_by].start if address.is_input else events[address.made_by].end
        for address in addresses.values()
    )
    finished = {call for call, event in events.items() if event.end <= cut}
    outermost = {call for call in finished if events[call].parent not in finished}
    made: dict[str, list[int]] = {}
    for name, number in sorted(events, key=lambda call: events[call].start):
        if events[name, number].parent not in finished:
            made.setdefault(name, []).append(number)
    answers = {call: outputs[call] for call in outermost}
    readers = _readers(generator, answers, made)
    return Plan(
        answered={call: map_tensors(answer, _unread) for call, answer in answers.items()},
        kept=(kept := frozenset(readers) | (outermost & {address.made_by for address in addresses.values()})),
        made=made,
        sites={call: _sites(generator, call, answers[call]) for call in kept},
    )


def _sites(generator: GeneratorAdapter, call: Call, output: Any) -> list[Site | None]:
    """The layer that each tensor of an output is, in the order of :func:`tensors_of`."""
    sites = {id(value): generator.site_at(Address(*call, entry)) for entry, value in entries(output)}
    return [sites.get(id(leaf)) for leaf in tensors_of(output)]


def _trace(generator: GeneratorAdapter) -> tuple[dict[Call, _Event], dict[Call, Any]]:
    events: dict[Call, _Event] = {}
    outputs: dict[Call, Any] = {}
    running: list[Call] = []
    time = count()

    def handler(name: str, number: int, run: Invocation) -> Any:
        call = (name, number)
        start, parent = next(time), running[-1] if running else None
        running.append(call)
        output = run()
        running.pop()
        events[call] = _Event(start, next(time), parent)
        try:
            outputs[call] = map_tensors(output, torch.clone)
        except NotReplayable:
            events[call].end = sys.maxsize  # never answered for, but what is inside it may be
        return output

    with intercepted(generator.submodules, handler):
        generator.forward(generator.example, noise=range(TRACED))
    return events, outputs


def _readers(
    generator: GeneratorAdapter, answers: Mapping[Call, Any], made: Mapping[str, Sequence[int]]
) -> dict[Call, set[Call | None]]:
    """For each answered call whose output is read by anything that still runs: the calls that read it."""
    owner: dict[int | None, Call] = {}
    readers: dict[Call, set[Call | None]] = {}
    running: list[Call] = []

    class Watch(Observer):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            for leaf in tree_leaves((args, kwargs)):
                if isinstance(leaf, Tensor) and (call := owner.get(storage_of(leaf))):
                    readers.setdefault(call, set()).add(running[-1] if running else None)
            return func(*args, **(kwargs or {}))

    def handler(name: str, number: int, run: Invocation) -> Any:
        call = (name, made[name][number - 1])
        if call in answers:
            for leaf in tensors_of(answers[call]):
                owner[storage_of(leaf)] = call
            return answers[call]
        running.append(call)
        output = run()
        running.pop()
        return output

    with intercepted(generator.submodules, handler), Watch():
        images = generator.forward(generator.example, noise=range(TRACED))
    # An answer that is the image itself is read by the caller.
    if (call := owner.get(storage_of(images))) is not None:
        readers.setdefault(call, set()).add(None)
    return readers


def _unread(value: Tensor) -> Tensor:
    """A tensor of the same form that takes no memory and, if ever read, shows as NaN."""
    if not value.is_floating_point():
        return value
    return torch.full((), float("nan"), dtype=value.dtype, device=value.device).expand(value.shape)
