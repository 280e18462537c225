"""Bases that are fitted on a generator's own activations."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Self

from ..base.errors import whole
from ..generator.adapter import GeneratorAdapter
from .basis import LinearBasis
from .streaming import ActivationStream


class FittedBasis(LinearBasis):
    """A basis that :meth:`fit` makes from activations; a subclass says how, and of what.

    Attributes:
        n_features: how many are asked for; None for as many as activations have numbers.
    """

    def __init__(self, n_features: int | None, *, needed: bool = False) -> None:
        super().__init__()
        self.n_features = None if n_features is None and not needed else whole(n_features, "n_features", 1)

    @property
    def of_layers(self) -> bool:
        """Whether it is fitted on the activations of whole layers, not on the channels at each position."""
        return False

    def fit(
        self,
        generator: GeneratorAdapter,
        layer: str,
        *,
        n_samples: int = 1000,
        seed: int = 0,
        show_progress: bool = False,
    ) -> Self:
        """Fit on the activations of ``n_samples`` latents, which are streamed: memory does not grow with them.

        >>> cp.bases.PCA(64).fit(gen, "main.8", n_samples=1000)  # doctest: +SKIP

        Raises:
            ProbeError: too few samples for so many features, more features than a layer has numbers, activations that
                are NaN or infinite, or that this basis cannot be of.
        """
        stream = ActivationStream(generator, layer, n_samples=n_samples, seed=seed, whole_layer=self.of_layers)
        about = self._fit(stream, show_progress=show_progress)
        self._settle(generator, stream.info, n_samples=stream.n_samples, seed=stream.seed, **about)
        return self

    @abstractmethod
    def _fit(self, stream: ActivationStream, *, show_progress: bool) -> dict[str, Any]:
        """Set directions, readers and mean; what else a result is to record."""
