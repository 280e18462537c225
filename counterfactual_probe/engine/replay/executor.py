"""Start at the layer: submodules that finish before it return the output they had in the clean run.

Works on any module, without reading its code: the forward itself runs, but finished submodules
answer from a record. An answer that only other answered submodules would read is not even kept:
a NaN stands for it, so that a wrong guess shows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...base.memory import on_device
from ...generator import latents as lt
from ...generator.adapter import GeneratorAdapter
from ...generator.latents import Latents
from ...generator.layers import Site, require_once
from ..checked import disagreement
from ..executors import FullForward
from ..forms.form import Form
from ..interception import Call, Handler, Invocation, NotReplayable, intercepted, map_tensors, tensors_of
from ..runs import CleanRun, Edit, Runs
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
    by_difference = False
    convolutions = Form.PLAIN.value
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
        sites = [self.generator.site(layer) for layer in layers]
        runs: Counter[str] = Counter()

        def note(call: Call, handed: Any, *, is_input: bool) -> None:
            for site in _handed_over(sites, call, is_input=is_input):
                runs[site.info.name] += 1
                activations[site.info.name] = site.info.channels_first(_read(site, handed)).detach().clone()

        def handler(name: str, number: int, run: Invocation) -> Any:
            call = (name, number)
            note(call, run.arguments, is_input=True)
            output = run()
            if call in self.plan.kept:
                # Rows of it keep the layout.
                outputs[call] = [self._laid_out(leaf.clone()) for leaf in tensors_of(output)]
            note(call, output, is_input=False)
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
        index = on_device(runs.samples, self.generator.device)
        edits = [(self.generator.site(layer), some) for layer, some in runs.edits.items()]
        missing = set(runs.edits)

        def handler(name: str, number: int, run: Invocation) -> Any:
            call = self._made(name, number)
            form = self.plan.answered.get(call)
            if form is not None:
                output, is_fresh = self._answer(base, call, form, index), True
            else:
                run.arguments = _edited(edits, call, run.arguments, missing, is_input=True)
                output, is_fresh = run(), False
            return _edited(edits, call, output, missing, is_input=False, is_fresh=is_fresh)

        numbers = [base.numbers[row] for row in runs.samples]
        images = self._run(lt.take(base.latents, index), handler, numbers, base.seed)
        if missing:
            raise NotReplayable(f"{min(missing)} did not run")
        return images

    def _answer(self, base: RecordedRun, call: Call, form: Any, index: Tensor) -> Any:
        """The output of a call that is not made: rows of the record, or NaNs if nothing reads it."""
        if call not in self.plan.kept:
            return map_tensors(form, lambda like: like[:1].expand(len(index), *like.shape[1:]))
        # Always fresh copies: what follows may work in place.
        leaves = zip(base.outputs[call], self.plan.sites[call], strict=True)
        return map_tensors(form, lambda like: self._rows(*next(leaves), index, like))

    def _laid_out(self, value: Tensor) -> Tensor:
        if value.dim() != 4 or self.generator.device.type != "cpu":
            return value
        # Also back to the usual layout, of what was recorded before the other was found not to do.
        return value.contiguous(memory_format=torch.channels_last if self._channels_last else torch.contiguous_format)

    def _rows(self, value: Tensor, site: Site | None, index: Tensor, like: Tensor) -> Tensor:
        """The rows of a recorded output, or all of it if its first dimension does not hold the samples."""
        if like.dim() and len(like) == TRACED:
            return self._laid_out(value[index])
        if site is None:
            return value.clone()
        return site.info.as_before(site.info.channels_first(value)[index])

    def _made(self, name: str, number: int) -> Call:
        calls = self.plan.made.get(name, ())
        if number > len(calls):
            raise NotReplayable(f"{name} ran more often than in the trace")
        return name, calls[number - 1]

    def _run(self, latents: Latents, handler: Handler, numbers: Sequence[int], seed: int) -> Tensor:
        with intercepted(self.generator.submodules, handler):
            return self.generator.forward(latents, noise=numbers, seed=seed)


def _handed_over(sites: Sequence[Site], call: Call, *, is_input: bool) -> Iterator[Site]:
    """The layers that a call hands over.

    A submodule that ran once in the first forward is to be seen if it runs again.
    """
    for site in sites:
        name, number = site.address.made_by
        if site.address.is_input is is_input and name == call[0] and (site.is_only_call or number == call[1]):
            yield site


def _read(site: Site, handed: Any) -> Tensor:
    activation = site.read(handed)
    if activation is None:
        raise NotReplayable(f"{site.info.name} gives no tensor")
    return activation


def _edited(
    edits: Sequence[tuple[Site, Sequence[Edit]]],
    call: Call,
    handed: Any,
    missing: set[str],
    *,
    is_input: bool,
    is_fresh: bool = False,
) -> Any:
    """What a call hands over with the edits of its layers, which are taken off ``missing``."""
    for site, some in edits:
        if site.address.is_input is not is_input or site.address.made_by != call:
            continue
        missing.discard(site.info.name)
        activation = _read(site, handed)
        if not is_fresh:
            activation = activation.clone()
        view = site.info.channels_first(activation)
        for edit in some:
            edit(view)
        handed = site.replaced(handed, activation)
    return handed
