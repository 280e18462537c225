"""Start at the layer: submodules that finish before it return the output they had in the clean run.

Works on any module, without reading its code: the forward itself runs, but finished submodules
answer from a record. An answer that only other answered submodules would read is not even kept:
a NaN stands for it, so that a wrong guess shows. One hybrid is compared with a full forward; when
they differ, or anything fails, everything falls back to full forwards, and the result says so.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .. import latents as lt
from ..errors import ProbeError
from ..generator import GeneratorAdapter
from ..latents import Latents
from ..layers import activation_of, channels_first, with_activation
from ..memory import is_out_of_memory
from .executors import CleanRun, Edit, Executor, FullForward
from .interception import Handler, NotReplayable, intercepted, map_tensors, tensors_of

Call = tuple[str, int]  # a submodule's name and which of its calls

_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
_TRACED = 2  # samples in the traced forward


@dataclass(frozen=True)
class Plan:
    """Which calls are answered from the record when intervening on some layers."""

    answered: Mapping[Call, Any]  # outermost calls that finish by the first layer -> NaNs of their form
    kept: frozenset[Call]  # those whose output something else reads
    made: Mapping[str, Sequence[int]]  # for each submodule the calls still made, in order
    edited: Mapping[str, Call]


@dataclass(frozen=True)
class RecordedRun(CleanRun):
    """A clean run with the outputs that replay answers with, as flat lists of tensors."""

    outputs: Mapping[Call, list[Tensor]] = field(default_factory=dict)


@dataclass
class _Event:
    start: int
    end: int
    parent: Call | None


def executor_for(generator: GeneratorAdapter, layers: Sequence[str]) -> Executor:
    """The fastest executor that is right for these layers of this generator."""
    # Noise is drawn in the order of the forward: skipping part of it would shift the rest.
    if not layers or not generator.batchable:
        return FullForward(generator)
    try:
        return Replay(generator, layers)
    except (NotReplayable, ProbeError):
        return FullForward(generator)


class Replay:
    """Executor that runs only what comes after the first intervened layer."""

    def __init__(self, generator: GeneratorAdapter, layers: Sequence[str]) -> None:
        self.generator = generator
        self.name = "replay"
        self._full = FullForward(generator)
        self._checked = False
        # Convolutions on a CPU are faster in this layout, and pass it on to the next.
        self._channels_last = generator.device.type == "cpu"
        with generator.session():
            self.plan = _plan(generator, layers)

    def clean(
        self, latents: Latents, layers: Sequence[str], numbers: Sequence[int], seed: int, *, base: bool = True
    ) -> CleanRun:
        if not base or self.name != "replay":
            return self._full.clean(latents, layers, numbers, seed, base=base)
        outputs: dict[Call, list[Tensor]] = {}
        activations: dict[str, Tensor] = {}
        names = {self.plan.edited[layer]: layer for layer in layers}

        def handler(name: str, number: int, run: Callable[[], Any]) -> Any:
            output, call = run(), (name, number)
            if call in self.plan.kept:
                outputs[call] = [leaf.clone() for leaf in tensors_of(output)]
            if call in names:
                activation = activation_of(output)
                if activation is None:
                    raise NotReplayable(f"{name} returned no tensor")
                activations[names[call]] = channels_first(activation).clone()
            return output

        images = self._run(latents, handler, numbers, seed)
        return RecordedRun(latents, images, activations, numbers, seed, outputs)

    def intervened(self, base: CleanRun, rows: Sequence[int], edits: Mapping[str, Sequence[Edit]]) -> Tensor:
        if self.name != "replay" or not isinstance(base, RecordedRun):
            return self._full.intervened(base, rows, edits)
        images, problem = self._attempt(base, rows, edits)
        if images is not None and self._checked:
            return images
        reference = self._full.intervened(base, rows, edits)
        if images is None and self._channels_last:
            # The module may not take the layout; in the usual one it may well replay.
            self._channels_last, self._checked = False, False
            images, problem = self._attempt(base, rows, edits)
        if images is not None:
            tolerance = _TOLERANCE.get(self.generator.dtype or reference.dtype, 1e-2)
            gap = float((images - reference).abs().max())
            if gap <= tolerance * max(1.0, float(reference.abs().max())):
                self._checked = True
                return images
            problem = f"a difference of {gap:.2g}"
        self.name = f"full forward (replay disagreed: {problem})"
        return reference

    def _attempt(
        self, base: RecordedRun, rows: Sequence[int], edits: Mapping[str, Sequence[Edit]]
    ) -> tuple[Tensor | None, str]:
        """The images, or None and why there are none."""
        try:
            images = self._replayed(base, rows, edits)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            return None, f"{type(error).__name__} ({str(error)[:120]})"
        return (images, "") if bool(torch.isfinite(images).all()) else (None, "an image is not finite")

    def _replayed(self, base: RecordedRun, rows: Sequence[int], edits: Mapping[str, Sequence[Edit]]) -> Tensor:
        device = self.generator.device
        index = torch.tensor(rows, device=device)
        by_call = {self.plan.edited[layer]: layer_edits for layer, layer_edits in edits.items()}
        missing = set(by_call)

        def handler(name: str, number: int, run: Callable[[], Any]) -> Any:
            call = self._made(name, number)
            form = self.plan.answered.get(call)
            if form is None:
                output = run()
            elif call in self.plan.kept:
                # Always fresh copies: what follows may work in place.
                leaves = iter(base.outputs[call])
                output = map_tensors(form, lambda like: self._rows(next(leaves), index, like))
            else:
                output = map_tensors(form, lambda like: like[:1].expand(len(rows), *like.shape[1:]))
            if call in by_call:
                missing.discard(call)
                activation = activation_of(output)
                if activation is None:
                    raise NotReplayable(f"{name} returned no tensor")
                if form is None:
                    activation = activation.clone()
                view = channels_first(activation)
                for edit in by_call[call]:
                    edit(view)
                output = with_activation(output, activation)
            return output

        images = self._run(lt.take(base.latents, index), handler, [base.numbers[row] for row in rows], base.seed)
        if missing:
            raise NotReplayable(f"{sorted(missing)[0][0]} did not run")
        return images

    def _rows(self, value: Tensor, index: Tensor, like: Tensor) -> Tensor:
        """The rows of a recorded output, or all of it if its first dimension is not the sample."""
        if not like.dim() or len(like) != _TRACED:
            return value.clone()
        picked = value[index]
        return (
            picked.contiguous(memory_format=torch.channels_last)
            if self._channels_last and picked.dim() == 4
            else picked
        )

    def _made(self, name: str, number: int) -> Call:
        calls = self.plan.made.get(name, ())
        if number > len(calls):
            raise NotReplayable(f"{name} ran more often than in the trace")
        return name, calls[number - 1]

    def _run(self, latents: Latents, handler: Handler, numbers: Sequence[int], seed: int) -> Tensor:
        with intercepted(self.generator.submodules, handler):
            return self.generator.forward(latents, noise=numbers, seed=seed)


def _plan(generator: GeneratorAdapter, layers: Sequence[str]) -> Plan:
    """Trace one forward, then run it again with answers to see which of them are read."""
    events, outputs = _trace(generator)
    edited = {layer: _call(layer) for layer in layers}
    cut = min(events[call].end for call in edited.values())
    finished = {call for call, event in events.items() if event.end <= cut}
    outermost = {call for call in finished if events[call].parent not in finished}
    made: dict[str, list[int]] = {}
    for name, number in sorted(events, key=lambda call: events[call].start):
        if events[name, number].parent not in finished:
            made.setdefault(name, []).append(number)
    answers = {call: outputs[call] for call in outermost}
    return Plan(
        answered={call: map_tensors(answer, _unread) for call, answer in answers.items()},
        kept=_read(generator, answers, made) | (outermost & set(edited.values())),
        made=made,
        edited=edited,
    )


def _trace(generator: GeneratorAdapter) -> tuple[dict[Call, _Event], dict[Call, Any]]:
    events: dict[Call, _Event] = {}
    outputs: dict[Call, Any] = {}
    running: list[Call] = []
    time = count()

    def handler(name: str, number: int, run: Callable[[], Any]) -> Any:
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
        generator.forward(generator.example, noise=range(_TRACED))
    return events, outputs


def _read(
    generator: GeneratorAdapter, answers: Mapping[Call, Any], made: Mapping[str, Sequence[int]]
) -> frozenset[Call]:
    """The answered calls whose output is read by anything that still runs."""
    owner: dict[int, Call] = {}
    read: set[Call] = set()

    class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            for leaf in tree_leaves((args, kwargs)):
                if isinstance(leaf, Tensor) and leaf.untyped_storage().data_ptr() in owner:
                    read.add(owner[leaf.untyped_storage().data_ptr()])
            return func(*args, **(kwargs or {}))

    def handler(name: str, number: int, run: Callable[[], Any]) -> Any:
        call = (name, made[name][number - 1])
        if call not in answers:
            return run()
        for leaf in tensors_of(answers[call]):
            owner[leaf.untyped_storage().data_ptr()] = call
        return answers[call]

    with intercepted(generator.submodules, handler), Watch():  # type: ignore[no-untyped-call]
        images = generator.forward(generator.example, noise=range(_TRACED))
    # An answer that is the image itself is read by nobody but the caller.
    read.update(owner[ptr] for ptr in [images.untyped_storage().data_ptr()] if ptr in owner)
    return frozenset(read)


def _unread(value: Tensor) -> Tensor:
    """A tensor of the same form that takes no memory and, if ever read, shows as NaN."""
    if not value.is_floating_point():
        return value
    return torch.full((), float("nan"), dtype=value.dtype, device=value.device).expand(value.shape)


def _call(layer: str) -> Call:
    name, _, number = layer.partition("#")
    return name, int(number or 1)
