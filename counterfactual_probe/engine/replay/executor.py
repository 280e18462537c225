"""Start at the layer: submodules that finish before it return the output they had in the clean run.

Works on any module, without reading its code: the forward itself runs, but finished submodules
answer from a record. An answer that only other answered submodules would read is not even kept:
a NaN stands for it, so that a wrong guess shows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...generator import latents as lt
from ...generator.adapter import GeneratorAdapter
from ...generator.latents import Latents
from ...generator.layers import activation_of, channels_first, require_once, with_activation
from ..checked import disagreement
from ..executors import FullForward
from ..interception import Call, Handler, NotReplayable, intercepted, map_tensors, tensors_of
from ..runs import CleanRun, Runs
from .plan import TRACED, make_plan

_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


@dataclass(frozen=True)
class RecordedRun(CleanRun):
    """A clean run with the outputs that replay answers with, as flat lists of tensors."""

    outputs: Mapping[Call, list[Tensor]] = field(default_factory=dict)


class Replay:
    """Executor that runs only what comes after the first intervened layer."""

    run_type = RecordedRun
    rounding = ""
    batches = True
    independent = False

    def __init__(self, generator: GeneratorAdapter, layers: Sequence[str]) -> None:
        if generator.draws_noise:
            # Skipping part of a forward would shift the noise of the rest.
            raise NotReplayable("noise is drawn in the order of the forward")
        if not generator.batchable:
            raise NotReplayable("the samples of a batch influence one another")
        self.generator = generator
        self.confirmed: set[Hashable] = set()
        self._full = FullForward(generator)
        # Convolutions on a CPU are faster in this layout, and pass it on to the next.
        self._channels_last = generator.device.type == "cpu"
        with generator.session():
            self.plan = make_plan(generator, layers)

    def clean(
        self, latents: Latents, layers: Sequence[str], numbers: Sequence[int], seed: int, *, base: bool = True
    ) -> CleanRun:
        if not base:
            return self._full.clean(latents, layers, numbers, seed, base=base)
        outputs: dict[Call, list[Tensor]] = {}
        activations: dict[str, Tensor] = {}
        names = {self.plan.edited[layer]: layer for layer in layers}
        runs: Counter[str] = Counter()

        def handler(name: str, number: int, run: Callable[[], Any]) -> Any:
            output, call = run(), (name, number)
            if name in names.values():
                runs[name] += 1  # a layer without a number in its name must not run again
            elif call in names:
                runs[names[call]] += 1
            if call in self.plan.kept:
                # Rows of it keep the layout.
                outputs[call] = [self._laid_out(leaf.clone()) for leaf in tensors_of(output)]
            if call in names:
                activation = activation_of(output)
                if activation is None:
                    raise NotReplayable(f"{name} returned no tensor")
                activations[names[call]] = channels_first(activation).clone()
            return output

        images = self._run(latents, handler, numbers, seed)
        require_once(layers, runs)
        return RecordedRun(latents, images, activations, numbers, seed, outputs)

    def clean_problem(self, run: CleanRun, layers: Sequence[str]) -> str | None:
        return None  # it is a whole forward

    def kind(self, runs: Runs) -> Hashable:
        """Which layers are set."""
        return frozenset(runs.edits)

    def rows_to_compare(self, rows: int) -> list[int]:
        return list(range(rows))

    def hybrid_problem(self, images: Tensor, reference: Tensor, originals: Tensor) -> str | None:
        return disagreement(images, reference, _TOLERANCE.get(self.generator.dtype or reference.dtype, 1e-2))

    def try_differently(self) -> bool:
        """In the usual layout: the module may not take the other."""
        changed, self._channels_last = self._channels_last, False
        self.confirmed.clear()
        return changed

    def intervened(self, base: CleanRun, runs: Runs) -> Tensor:
        if not isinstance(base, RecordedRun):
            raise NotReplayable("the clean run was not recorded for replay")
        rows = runs.samples
        index = torch.tensor(rows, device=self.generator.device)
        by_call = {self.plan.edited[layer]: edits for layer, edits in runs.edits.items()}
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

    def _laid_out(self, value: Tensor) -> Tensor:
        if value.dim() != 4 or self.generator.device.type != "cpu":
            return value
        # Also back to the usual layout, of what was recorded before the other was found not to do.
        return value.contiguous(memory_format=torch.channels_last if self._channels_last else torch.contiguous_format)

    def _rows(self, value: Tensor, index: Tensor, like: Tensor) -> Tensor:
        """The rows of a recorded output, or all of it if its first dimension is not the sample."""
        if not like.dim() or len(like) != TRACED:
            return value.clone()
        return self._laid_out(value[index])

    def _made(self, name: str, number: int) -> Call:
        calls = self.plan.made.get(name, ())
        if number > len(calls):
            raise NotReplayable(f"{name} ran more often than in the trace")
        return name, calls[number - 1]

    def _run(self, latents: Latents, handler: Handler, numbers: Sequence[int], seed: int) -> Tensor:
        with intercepted(self.generator.submodules, handler):
            return self.generator.forward(latents, noise=numbers, seed=seed)
