"""What methods are given of a layer, twice: two independent samples of latents."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

import counterfactual_probe as cp
from counterfactual_probe.generator.latents import Latents, count
from counterfactual_probe.modules.clustering import unit_rows

from .methods import Floats, Labels, View

if TYPE_CHECKING:
    from .decoders import Truth

Group: TypeAlias = Literal["planted", "continuum", "decoder"]
T = TypeVar("T")

BLOCKS = 32  # of pairs
COMPONENTS = 16  # principal components of changes, for features="pca"
_OBSERVATIONS = 16_384  # samples × positions of activations, at most; evenly spread


@dataclass(frozen=True)
class Sample:
    """Of the channels of a layer, from one sample of latents: what methods see, and the CPU-seconds that it took."""

    influence: cp.InfluenceMaps
    activations: Floats
    seconds: dict[str, float]

    @property
    def maps(self) -> Floats:
        """(channels, pixels) pair-normalised maps as rows of unit L2 norm; zeros of a dead channel."""
        assert self.influence.normalised is not None
        return np.asarray(unit_rows(self.influence.normalised.flatten(1).double().numpy()))

    def view(self, sees: View) -> Any:
        return {"influence": self.influence, "maps": self.maps, "activations": self.activations}[sees]

    def seconds_of(self, sees: View) -> float:
        return self.seconds["activations" if sees == "activations" else "influence"]

    def templates(self, labels: Labels) -> Floats:
        """(K, H, W) mean of the maps of each module's channels."""
        maps = self.maps
        rows = [maps[labels == k].mean(0) for k in range(labels.max() + 1)]
        return np.stack(rows).reshape(-1, *self.influence.maps.shape[1:])

    @property
    def common(self) -> Floats:
        """(H, W) mean of all channels' maps."""
        return np.asarray(self.maps.mean(0).reshape(self.influence.maps.shape[1:]))


@dataclass(frozen=True)
class Problem:
    """A layer whose channels are to be grouped.

    Attributes:
        samples: two, of independent latents.
        modules: (channels,) the planted module of each channel, where that is known.
        scene: masks and factors, of decoders of the rendered scene.
    """

    group: Group
    name: str
    layer: str
    seed: int
    n_modules: int
    generator: cp.GeneratorAdapter = field(repr=False)
    samples: tuple[Sample, Sample] = field(repr=False)
    modules: Labels | None = field(default=None, repr=False)
    scene: Truth | None = field(default=None, repr=False)


def sampled(generator: cp.GeneratorAdapter, layer: str, base: Latents, source: Latents) -> Sample:
    """Influence maps of these pairs, and the activations of their bases."""
    influence, mapped = timed(
        lambda: cp.InfluenceMap(generator, layer).attribute(
            base, source, normalise="pair", blocks=min(BLOCKS, count(base) // 2), components=COMPONENTS
        )
    )
    activations, ran = timed(lambda: activations_of(generator, layer, base))
    return Sample(influence, activations, {"influence": mapped, "activations": ran})


def activations_of(generator: cp.GeneratorAdapter, layer: str, latents: Latents) -> Floats:
    """(channels, samples × positions) of a layer, of single precision."""
    seen: list[Tensor] = []

    def keep(view: Tensor) -> None:
        seen.append(view.float().cpu().clone())

    with generator.session():
        generator.forward(latents, {layer: keep}, noise=range(count(latents)))
    rows = torch.cat(seen).movedim(1, 0).flatten(1).numpy()
    return np.ascontiguousarray(rows[:, :: -(-rows.shape[1] // _OBSERVATIONS)])


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """What it returns, and the processor time that it took, of all threads."""
    start = time.process_time()
    result = work()
    return result, time.process_time() - start
