"""What the first forwards of a generator show: its layers, and whether it is reproducible, noisy or mixes samples."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..base.errors import ProbeError
from ..base.memory import is_out_of_memory
from . import latents as lt
from .latents import Latents
from .layers import Trace, Tracing
from .state.randomness import random_states

SAMPLES = 3  # in one batch, if memory allows
TRACED = 2  # of these, each alone

# Between batches of one sample and of two, fifty convolutions round to within 2e-5 of each other.
_RELATIVE_TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-4}


class LatentsIgnored(UserWarning):
    """The images do not depend on the latents, so no swap between two latents can change anything."""


@dataclass(frozen=True)
class Examination:
    """What the first forwards show.

    Attributes:
        images: of the first two samples.
        traces: what ran in the forward of a batch, and in those of its samples alone: of two, or of all if others than
            samples are folded with them anywhere.
        draws_noise: whether the forward draws random numbers.
        batchable: whether samples of a batch are independent, and none draws noise.
        ignores_latents: whether all latents give the same image.
    """

    images: Tensor
    traces: list[Trace]
    draws_noise: bool
    batchable: bool
    ignores_latents: bool

    def warn_if_latents_are_ignored(self, name: str) -> None:
        """Warn, where a generator is wrapped, that swaps of what depends on latents will change nothing."""
        if self.ignores_latents:
            cure = "noise='latent' makes what it draws the latents" if self.draws_noise else "check sample_latents"
            warnings.warn(
                f"the images of {name} do not depend on the latents of sample_latents, so that swaps between two "
                f"of them change nothing; {cure}",
                LatentsIgnored,
                stacklevel=4,
            )


def examine(
    name: str,
    module: nn.Module,
    submodules: Mapping[str, nn.Module],
    example: Latents,
    *,
    run: Callable[[Latents], Tensor],
    seed: Callable[[Latents], None],
    dtype: torch.dtype | None,
) -> Examination:
    """Run a generator on three samples, inside a session.

    ``run`` gives the images of latents, and ``seed`` seeds the random generators before it does.

    Raises:
        ProbeError: the same latents and random state give two images.
    """

    def seeded(latents: Latents) -> Tensor:
        seed(latents)
        return run(latents)

    def traced(latents: Latents, *, follow: bool) -> tuple[Tensor, Trace]:
        tracing = Tracing(submodules, lt.count(latents), follow=follow)
        return tracing.run(lambda: seeded(latents)), tracing.trace

    def followed(latents: Latents) -> tuple[Tensor, Trace]:
        """Channels are followed where the forward runs under a mode; compiled control flow, for one, does not."""
        try:
            return traced(latents, follow=True)
        except ProbeError:
            return traced(latents, follow=False)

    pair = lt.take(example, slice(0, TRACED))
    seed(pair)
    before = random_states(module)
    try:
        latents = example
        first, trace = followed(latents)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        latents = pair  # batches of two are as large as they get here
        first, trace = followed(latents)
    draws_noise = random_states(module) != before
    # Which of the samples a row of a folded dimension is of, is seen from those of each.
    is_folded = any(seen is not None and seen.rows is not None for seen in trace.seen.values())
    ones = [lt.take(example, slice(i, i + 1)) for i in range(trace.samples if is_folded else TRACED)]
    runs = [traced(one, follow=False) for one in ones]
    alone, images = torch.cat([image for image, _ in runs[:TRACED]]), first[:TRACED]
    same = is_same(alone, images, dtype)
    if draws_noise or not same:  # a sample with the same image alone and in a batch is reproducible
        _require_reproducible(name, alone[:1], seeded(ones[0]), dtype)
    if not same:  # because of the batch, or because the very first forward differs from all that follow
        _require_reproducible(name, first, seeded(latents), dtype)
    differ = any(not torch.equal(*value) for _, value in lt.named_tensors(pair))  # two may be of one class, say
    ignored = differ and torch.equal(*alone)
    traces = [trace, *(each for _, each in runs)]
    return Examination(images, traces, draws_noise, same and not draws_noise, ignored)


def _require_reproducible(name: str, images: Tensor, again: Tensor, dtype: torch.dtype | None) -> None:
    if not is_same(images, again, dtype):
        raise ProbeError(
            f"{name} gives two images for one latent although the random state is the same (largest difference "
            f"{float((images - again).abs().max()):.3g}); make its forward a function of latents, weights and torch's "
            "global generator alone; if its first forward alone differs, run it once before"
        )


def is_same(one: Tensor, two: Tensor, dtype: torch.dtype | None) -> bool:
    """Equal but for rounding: NaNs, which are reported where images are used, count as equal."""
    tolerance = _RELATIVE_TOLERANCE.get(dtype or one.dtype, 1e-2)
    scale = float(torch.nan_to_num(one).abs().max())
    return torch.allclose(one, two, rtol=0.0, atol=tolerance * max(scale, 1e-30), equal_nan=True)
