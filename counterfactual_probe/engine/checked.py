"""Run the fastest executor that proves right; fall back to the next one when it does not.

A fast executor may fail to be set up, fail while it runs, or give wrong images: it rests on a recording
of the generator's forward, and a forward is arbitrary code. So the first clean run and the first hybrids
of each kind are compared with whole forwards, every exception means falling back, as do images that are not finite, and
:attr:`Checked.choice` says why. Four exceptions pass: an interrupt, a forward that changed its weights, another thread
that disturbed the run, and running out of memory in a run, after which the caller tries a smaller batch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Protocol, TypeVar

from torch import Tensor

from ..base.errors import Interrupted, ProbeError, described
from ..base.memory import is_out_of_memory
from ..generator.adapter import GeneratorAdapter
from ..generator.images import all_finite
from ..generator.latents import Latents
from ..generator.state.arithmetic import is_tf32_allowed
from ..generator.state.contents.attributes import ModuleChanged
from ..generator.state.disturbance import Disturbed
from .executors import Choice, FullForward, Rejection, Strategy
from .interception import NotReplayable
from .runs import CleanRun, Runs

T = TypeVar("T")
NOT_FINITE = "an image is not finite"
_TF32_TOLERANCE = 1e-2  # ten bits, after many layers; the errors of a wrong program are of the order of the image


class FastExecutor(Protocol):
    """An executor that may be wrong, and how to find that out."""

    @property
    def run_type(self) -> type[CleanRun]:
        """The type of its own clean runs, which alone its hybrids start from."""

    @property
    def confirmed(self) -> set[Hashable]:
        """Kinds of hybrids that were compared with whole forwards, and are right."""

    @property
    def batches(self) -> bool: ...

    @property
    def independent(self) -> bool: ...

    @property
    def by_difference(self) -> bool: ...

    @property
    def convolutions(self) -> str: ...

    @property
    def rounding(self) -> str: ...

    def clean(
        self, latents: Latents, layers: Sequence[str], numbers: Sequence[int], seed: int, *, base: bool = True
    ) -> CleanRun: ...

    def intervened(self, base: CleanRun, runs: Runs) -> Tensor: ...

    def clean_problem(self, run: CleanRun, layers: Sequence[str]) -> str | None:
        """What is wrong with a clean run, as whole forwards show; None if nothing is."""

    def kind(self, runs: Runs) -> Hashable:
        """Runs of one kind are computed by the same steps, so that one comparison vouches for all."""

    def rows_to_compare(self, rows: int) -> list[int]:
        """Which rows of a batch are compared with whole forwards."""

    def hybrid_problem(self, images: Tensor, reference: Tensor, originals: Tensor) -> str | None:
        """How images differ from those of whole forwards by more than rounding; None if they do not."""

    def try_differently(self) -> bool:
        """After a failure: change what may have caused it, if anything is left to change."""


class Checked:
    """The executor that :func:`executor_for` gives: fast where that is right, whole forwards otherwise.

    ``candidates`` are functions that set up fast executors, in the order in which they are tried.
    """

    def __init__(self, generator: GeneratorAdapter, candidates: Mapping[Strategy, Callable[[], FastExecutor]]) -> None:
        self._full = FullForward(generator)
        self._candidates = list(candidates.items())
        self._rejected: list[Rejection] = []
        self._strategy = Strategy.FULL_FORWARD
        self._fast: FastExecutor | None = None
        self._clean_confirmed = False
        self._set_up_next()

    @property
    def choice(self) -> Choice:
        alone = self._full.choice.alone if self._fast is None else ""
        return Choice(self._strategy, tuple(self._rejected), alone)

    @property
    def batches(self) -> bool:
        return self._full.batches if self._fast is None else self._fast.batches

    @property
    def independent(self) -> bool:
        return self._fast is not None and self._fast.independent

    @property
    def by_difference(self) -> bool:
        return self._fast is not None and self._fast.by_difference

    @property
    def convolutions(self) -> str:
        return (self._full if self._fast is None else self._fast).convolutions

    @property
    def rounding(self) -> str:
        return "" if self._fast is None else self._fast.rounding

    def clean(
        self, latents: Latents, layers: Sequence[str], numbers: Sequence[int], seed: int, *, base: bool = True
    ) -> CleanRun:
        while (fast := self._fast) is not None:
            run, problem = _attempt(partial(fast.clean, latents, layers, numbers, seed, base=base))
            if run is not None and not self._clean_confirmed:
                problem = fast.clean_problem(run, layers)
            if run is not None and problem is None:
                self._clean_confirmed = True
                return run
            changed, failure = _attempt(fast.try_differently)
            if not changed:
                self._reject(failure or problem)
        return self._full.clean(latents, layers, numbers, seed, base=base)

    def intervened(self, base: CleanRun, runs: Runs) -> Tensor:
        fast = self._fast
        # The clean run may be from before a fall-back; any executor's serves for whole forwards.
        if fast is None or not isinstance(base, fast.run_type):
            return self._full.intervened(base, runs)
        images, problem = self._images(fast, base, runs)
        if images is None and _attempt(fast.try_differently)[0]:
            images, problem = self._images(fast, base, runs)
        if images is not None:
            kind = fast.kind(runs)
            if kind in fast.confirmed:
                return images
            # Whole forwards come last: of the same rows, they would leave behind what a hidden path reads.
            rows = fast.rows_to_compare(len(runs))
            compared = runs.part(rows)
            reference = self._full.intervened(base, compared)
            problem = fast.hybrid_problem(images[rows], reference, base.images[compared.samples])
            if problem is None:
                fast.confirmed.add(kind)
                return images
        self._reject(problem)
        return self._full.intervened(base, runs)

    def doubt(self, problem: str) -> bool:
        if self._fast is None:
            return False
        self._reject(problem)
        return True

    def _images(self, fast: FastExecutor, base: CleanRun, runs: Runs) -> tuple[Tensor | None, str | None]:
        images, problem = _attempt(partial(fast.intervened, base, runs))
        if images is None:
            return None, problem
        if images.shape != (len(runs), *base.images.shape[1:]):
            return None, f"images of shape {tuple(images.shape)} for {len(runs)} runs"
        # Those of a kind that was right are looked at by who gets them, who need not wait for a device at once.
        if fast.kind(runs) in fast.confirmed or all_finite(images):
            return images, None
        return None, NOT_FINITE

    def _reject(self, problem: str | None) -> None:
        self._rejected.append(Rejection(self._strategy, problem or "it failed", disagreed=True))
        self._set_up_next()

    def _set_up_next(self) -> None:
        """Set up the next candidate that can be; None are left: whole forwards."""
        self._fast, self._clean_confirmed = None, False
        while self._candidates and self._fast is None:
            self._strategy, set_up = self._candidates.pop(0)
            # With room for less than the samples of a trial run, a slower one may still do.
            self._fast, problem = _attempt(set_up, memory=True)
            if problem is not None:
                self._rejected.append(Rejection(self._strategy, problem, disagreed=False))
        if self._fast is None:
            self._strategy = Strategy.FULL_FORWARD


def disagreement(images: Tensor, expected: Tensor, tolerance: float) -> str | None:
    """What a result says when images are not those of full forwards, up to rounding; None if they are."""
    if expected.is_cuda and is_tf32_allowed():
        tolerance = max(tolerance, _TF32_TOLERANCE)
    gap = float((images - expected).abs().max())
    # Written so that a NaN disagrees.
    return None if gap <= tolerance * max(1.0, float(expected.abs().max())) else f"a difference of {gap:.2g}"


def _attempt(work: Callable[[], T], *, memory: bool = False) -> tuple[T | None, str | None]:
    """What ``work`` returns, or None and why it failed. ``memory``: running out of it is a failure like others."""
    try:
        return work(), None
    except (Interrupted, ModuleChanged, Disturbed):
        raise
    except Exception as error:
        if is_out_of_memory(error) and not memory:
            raise
        return None, _reason(error)


def _reason(error: BaseException) -> str:
    """An exception in brief, the same in every run: results record it."""
    if is_out_of_memory(error):
        return "memory ran out"  # its message counts bytes
    # What an executor refuses in the middle of a forward comes out as the forward's own failure.
    if isinstance(error, ProbeError) and isinstance(error.__cause__, NotReplayable):
        error = error.__cause__
    text = str(error) if isinstance(error, NotReplayable) else described(error)
    return re.sub(r" at 0x[0-9a-f]+", "", " ".join(text.split()))
