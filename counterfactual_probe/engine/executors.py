"""Executors: run a generator cleanly, or with channels of some layers set.

Every executor must give the images that :class:`FullForward` gives, to rounding; they differ in
how much of the generator they run again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import torch
from torch import Tensor

from ..base.memory import on_device
from ..generator import latents as lt
from ..generator.adapter import GeneratorAdapter
from ..generator.latents import Latents
from .forms.form import Form
from .runs import CleanRun, Edit, Runs


class Strategy(Enum):
    """How hybrids are computed, fastest first."""

    PREPARED = "prepared"  # the recorded forward, simplified, from the edited layer on
    REPLAY = "replay"  # the module's own code, from the edited layer on
    FULL_FORWARD = "full forward"


@dataclass(frozen=True)
class Rejection:
    """Why a faster strategy was not used."""

    strategy: Strategy
    reason: str
    disagreed: bool  # it ran and gave other images, or failed while it ran; False: it could not be set up

    def __str__(self) -> str:
        if self.disagreed:
            return f"{self.strategy.value} disagreed: {self.reason}"
        return f"not {'replayed' if self.strategy is Strategy.REPLAY else self.strategy.value}: {self.reason}"


@dataclass(frozen=True)
class Choice:
    """The strategy in use and the faster ones rejected before it. As a string it is what results record.

    ``alone`` says why samples are run one at a time; "" if they are not.
    """

    strategy: Strategy
    rejected: tuple[Rejection, ...] = ()
    alone: str = ""

    def __str__(self) -> str:
        reasons = [*map(str, self.rejected), *([f"one sample at a time: {self.alone}"] if self.alone else [])]
        return self.strategy.value + (f" ({'; '.join(reasons)})" if reasons else "")


class Executor(Protocol):
    """How the generator is run. Called inside ``generator.session()`` only."""

    @property
    def choice(self) -> Choice:
        """What runs the hybrids; it changes when an executor falls back."""

    @property
    def batches(self) -> bool:
        """Whether it runs several samples, and several hybrids, at a time."""

    @property
    def independent(self) -> bool:
        """Whether samples of a batch are proved independent; False leaves it open."""

    @property
    def by_difference(self) -> bool:
        """Whether any hybrid ran as a difference in few units, carried through the first linear operation."""

    @property
    def convolutions(self) -> str:
        """The form in which convolutions of hybrids are computed; "plain" is the module's own call."""

    @property
    def rounding(self) -> str:
        """What rounds images beyond the generator's own dtype; "" if nothing does."""

    def clean(
        self, latents: Latents, layers: Sequence[str], numbers: Sequence[int], seed: int, *, base: bool = True
    ) -> CleanRun:
        """Run without intervention and record the layers; ``base`` says whether hybrids start here."""

    def intervened(self, base: CleanRun, runs: Runs) -> Tensor:
        """Images of one run per row on the base samples that ``runs`` names, the layers edited as
        soon as they are computed; everything not set is recomputed from what is already set."""

    def doubt(self, problem: str) -> bool:
        """Fall back because of images that were given already; False if there is nothing to fall back to."""


class FullForward:
    """The plain executor: every hybrid is a whole forward with hooks. The reference for all others."""

    rounding = ""
    independent = False
    by_difference = False
    convolutions = Form.PLAIN.value

    def __init__(self, generator: GeneratorAdapter) -> None:
        self.generator = generator

    @property
    def choice(self) -> Choice:
        if self.batches:
            return Choice(Strategy.FULL_FORWARD)
        draws = self.generator.draws_noise
        why = "the forward draws noise" if draws else "the samples of a batch influence one another"
        return Choice(Strategy.FULL_FORWARD, alone=why)

    @property
    def batches(self) -> bool:
        return self.generator.batchable

    def clean(
        self, latents: Latents, layers: Sequence[str], numbers: Sequence[int], seed: int, *, base: bool = True
    ) -> CleanRun:
        if self.batches:
            return self._clean(latents, layers, numbers, seed)
        parts = [
            self._clean(lt.take(latents, slice(i, i + 1)), layers, numbers[i : i + 1], seed)
            for i in range(len(numbers))
        ]
        images = torch.cat([part.images for part in parts])
        activations = {layer: torch.cat([part.activations[layer] for part in parts]) for layer in layers}
        return CleanRun(latents, images, activations, numbers, seed)

    def _clean(self, latents: Latents, layers: Sequence[str], numbers: Sequence[int], seed: int) -> CleanRun:
        activations: dict[str, Tensor] = {}

        def record(layer: str) -> Callable[[Tensor], None]:
            def action(activation: Tensor) -> None:
                # A copy: an in-place activation may overwrite the layer's own output.
                activations[layer] = activation.detach().clone()  # a forward may take gradients

            return action

        actions = {layer: record(layer) for layer in layers}
        images = self.generator.forward(latents, actions, noise=numbers, seed=seed)
        return CleanRun(latents, images, activations, numbers, seed)

    def intervened(self, base: CleanRun, runs: Runs) -> Tensor:
        if self.batches:
            return self._intervened(base, runs)
        return torch.cat([self._intervened(base, runs.part([row])) for row in range(len(runs))])

    def doubt(self, problem: str) -> bool:
        return False

    def _intervened(self, base: CleanRun, runs: Runs) -> Tensor:
        def action_for(layer_edits: Sequence[Edit]) -> Callable[[Tensor], Tensor]:
            def action(activation: Tensor) -> Tensor:
                edited = activation.clone()
                for edit in layer_edits:
                    edit(edited)
                return edited

            return action

        actions = {layer: action_for(layer_edits) for layer, layer_edits in runs.edits.items()}
        latents = lt.take(base.latents, on_device(runs.samples, self.generator.device))
        noise = [base.numbers[sample] for sample in runs.samples]
        return self.generator.forward(latents, actions, noise=noise, seed=base.seed)
