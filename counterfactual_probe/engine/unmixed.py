"""Whether the samples of a batch influence one another, checked where it matters: in the batches that are run.

Three samples, examined when a generator is wrapped, show most generators that mix samples (a shared scale, a first
sample that all see), and not those that do so for some values or batch sizes only. So one sample of every block, and
one hybrid of every new batch size, is run alone as well; of every batch, where the module's code runs, which may
branch on values. Not so if the executor's program is proved to keep samples apart (see ``program.independence``),
which no batch can refute.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..generator import latents as lt
from ..generator.adapter import GeneratorAdapter
from ..generator.examination import is_same
from ..generator.latents import Latents
from .executors import Choice, Executor, FullForward, Rejection, Strategy
from .runs import CleanRun, Runs


class Unmixed:
    """An executor whose batches are compared with samples alone; from the first difference on, all run alone."""

    def __init__(self, generator: GeneratorAdapter, executor: Executor) -> None:
        self.generator = generator
        self._executor = executor
        self._full = FullForward(generator)
        self._sizes_seen: set[int] = set()
        self._rejected: tuple[Rejection, ...] = ()

    @property
    def choice(self) -> Choice:
        choice = self._executor.choice
        return replace(choice, rejected=(*self._rejected, *choice.rejected))

    @property
    def batches(self) -> bool:
        return self._executor.batches

    @property
    def rounding(self) -> str:
        return self._executor.rounding

    @property
    def by_difference(self) -> bool:
        return self._executor.by_difference

    @property
    def convolutions(self) -> str:
        return self._executor.convolutions

    @property
    def independent(self) -> bool:
        return self._executor.independent

    @property
    def _is_fixed(self) -> bool:
        """Whether all batches go through the same operations; code may go another way for some values."""
        return self._executor.choice.strategy is Strategy.PREPARED

    @property
    def _is_settled(self) -> bool:
        """Whether samples are proved independent, or run alone."""
        return self.independent or not self.generator.batchable

    def clean(
        self, latents: Latents, layers: Sequence[str], numbers: Sequence[int], seed: int, *, base: bool = True
    ) -> CleanRun:
        run = self._executor.clean(latents, layers, numbers, seed, base=base)
        if self._is_settled or len(numbers) < 2:
            return run
        row = _smallest(run.images)
        alone = self._full.clean(lt.take(latents, slice(row, row + 1)), layers, numbers[row : row + 1], seed)
        if self._is_same(alone.images, run.images[row : row + 1]):
            return run
        self._run_alone()
        return self._executor.clean(latents, layers, numbers, seed, base=base)

    def intervened(self, base: CleanRun, runs: Runs) -> Tensor:
        images = self._executor.intervened(base, runs)
        size = len(runs)
        if self._is_settled or size < 2 or self.rounding or (self._is_fixed and size in self._sizes_seen):
            return images
        row = _smallest(images)
        if self._is_same(self._full.intervened(base, runs.part([row])), images[row : row + 1]):
            self._sizes_seen.add(size)
            return images
        self._run_alone()
        return self._executor.intervened(base, runs)

    def doubt(self, problem: str) -> bool:
        return self._executor.doubt(problem)

    def _is_same(self, alone: Tensor, in_batch: Tensor) -> bool:
        return is_same(alone, in_batch, self.generator.dtype)

    def _run_alone(self) -> None:
        strategy = self._executor.choice.strategy
        if strategy is not Strategy.FULL_FORWARD:
            reason = "samples come out of a batch other than alone"
            self._rejected = (Rejection(strategy, reason, disagreed=True),)
        self._executor = self._full
        self.generator.batchable = False


def _smallest(images: Tensor) -> int:
    """The row of the smallest values, where a scale shared by all samples has the largest effect."""
    return int(torch.nan_to_num(images.flatten(1).abs().amax(1), nan=torch.inf).argmin())
