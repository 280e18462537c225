"""The activations of a layer over many latents, in blocks of rows."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..base.errors import ProbeError, whole
from ..base.progress import progress_bar
from ..generator import latents as lt
from ..generator.adapter import GeneratorAdapter

Rows = npt.NDArray[np.float64]
_LATENTS = 64  # drawn at a time; fixed, so that the machine's memory changes no block


class ActivationStream:
    """Rows of channels, one for each sample and position; with ``whole``, one row of everything for each sample.

    Blocks have at least ``least`` rows, and their bounds depend on nothing but the arguments.
    """

    def __init__(
        self, generator: GeneratorAdapter, layer: str, *, n_samples: int, seed: int, whole_layer: bool = False
    ) -> None:
        self.generator, self.info = generator, generator.layer(layer)
        self.n_samples, self.seed = whole(n_samples, "n_samples", 1), whole(seed, "the seed", 0)
        self.whole = whole_layer
        self.rows = self.n_samples * (1 if whole_layer else prod(self.info.size))
        self.width = self.info.channels * (prod(self.info.size) if whole_layer else 1)

    def blocks(self, least: int, *, show_progress: bool = False) -> Iterator[Rows]:
        """Blocks of at least so many rows (rows, width)."""
        if self.rows < least:
            raise ProbeError(
                f"{self.n_samples} samples of layer {self.info.name!r} are {self.rows} rows, and {least} are needed; "
                "give more samples, or ask for fewer features"
            )
        waiting: list[Rows] = []
        with progress_bar(self.n_samples, "activations", "sample", show_progress) as bar:
            for start in range(0, self.n_samples, _LATENTS):
                stop = min(self.n_samples, start + _LATENTS)
                waiting.append(self._activations(start, stop))
                bar.update(stop - start)
                remaining = self.rows - self.rows * stop // self.n_samples
                if sum(map(len, waiting)) >= least and (remaining >= least or not remaining):
                    yield np.concatenate(waiting)
                    waiting = []

    def sample(self, most: int, *, show_progress: bool = False) -> Rows:
        """At most so many rows, evenly spread."""
        step = max(1, -(-self.rows // most))
        taken, passed = [], 0
        for block in self.blocks(1, show_progress=show_progress):
            taken.append(block[(-passed) % step :: step])
            passed += len(block)
        return np.concatenate(taken)

    def _activations(self, start: int, stop: int) -> Rows:
        generator, latents = self.generator, self.generator.sample(stop - start, seed=self.seed, start=start)
        seen: list[Tensor] = []

        def keep(view: Tensor) -> None:
            seen.append(view.double().cpu())

        def run(index: slice) -> None:
            seen_before = len(seen)
            try:
                numbers = range(start, stop)[index]
                generator.forward(lt.take(latents, index), {self.info.name: keep}, noise=numbers, seed=self.seed)
            except BaseException:
                del seen[seen_before:]  # the slice is halved and run again
                raise

        with generator.session():
            for _ in generator.batches(stop - start, run):
                pass
        values = torch.cat(seen)
        rows = values.flatten(1) if self.whole else values.movedim(1, -1).reshape(-1, self.info.channels)
        if not bool(torch.isfinite(rows).all()):
            raise ProbeError(f"layer {self.info.name!r} gives NaN or infinite values; check the weights")
        return np.ascontiguousarray(rows.numpy())
