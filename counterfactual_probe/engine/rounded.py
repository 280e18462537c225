"""Hybrids whose float32 products are rounded to TF32: faster on a GPU, and off by more."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..generator.latents import Latents
from ..generator.state.arithmetic import tf32_allowed
from .executors import Choice, Executor
from .runs import CleanRun, Runs


class InTF32:
    """An executor that runs with TF32 allowed; a session allows it nowhere else."""

    rounding = "tf32"

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    @property
    def choice(self) -> Choice:
        return self._executor.choice

    @property
    def batches(self) -> bool:
        return self._executor.batches

    @property
    def independent(self) -> bool:
        return self._executor.independent

    @property
    def by_difference(self) -> bool:
        return self._executor.by_difference

    @property
    def convolutions(self) -> str:
        return self._executor.convolutions

    def clean(
        self, latents: Latents, layers: Sequence[str], numbers: Sequence[int], seed: int, *, base: bool = True
    ) -> CleanRun:
        with tf32_allowed(True):
            return self._executor.clean(latents, layers, numbers, seed, base=base)

    def intervened(self, base: CleanRun, runs: Runs) -> Tensor:
        with tf32_allowed(True):
            return self._executor.intervened(base, runs)

    def doubt(self, problem: str) -> bool:
        return self._executor.doubt(problem)
