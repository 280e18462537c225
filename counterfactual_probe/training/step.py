"""One step as a recipe sees it: networks, images, and random numbers that depend on nothing but the step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..base.errors import ProbeError
from ..distributed.ranks import Ranks
from ..generator.latents import stream_seed

DRAWS = 6  # a stream of random numbers of its own


class Networks(Mapping[str, nn.Module]):
    """The networks by name, as a step calls them: with several ranks, wrapped so that gradients are averaged."""

    def __init__(self, prepared: Mapping[str, nn.Module], plain: Mapping[str, nn.Module]) -> None:
        self._prepared, self.plain = dict(prepared), dict(plain)

    def __getitem__(self, name: str) -> nn.Module:
        return self._prepared[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._prepared)

    def __len__(self) -> int:
        return len(self._prepared)

    @contextmanager
    def frozen(self, name: str) -> Iterator[nn.Module]:
        """A network that passes gradients through without collecting any, for losses of another network."""
        module = self.plain[name]
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        for parameter in trained:
            parameter.requires_grad_(False)
        try:
            yield module
        finally:
            for parameter in trained:
                parameter.requires_grad_(True)


class Step:
    """A step's images and random numbers.

    Attributes:
        number: counted from 0.
        networks: by name.
        images: (n, C, H, W) in −1…1, this rank's share of the batch.
    """

    def __init__(
        self,
        number: int,
        networks: Networks,
        images: Tensor,
        *,
        seed: int,
        ranks: Ranks,
        stream: int = DRAWS,
        labels: Tensor | None = None,
    ) -> None:
        self.number, self.networks, self.images = number, networks, images
        self._labels = labels
        self._ranks = ranks
        # On the CPU and for the whole batch, so that device and number of ranks change no number.
        self._rng = torch.Generator().manual_seed(stream_seed(seed, stream, number))

    @property
    def labels(self) -> Tensor:
        """The classes (n,) of the images."""
        if self._labels is None:
            raise ProbeError("these images have no classes; give a folder or zip with one folder a class")
        return self._labels

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers (n, *shape), one row for each image."""
        return self._placed(torch.randn(self._n, *shape, generator=self._rng))

    def uniform(self, *shape: int) -> Tensor:
        """Numbers (n, *shape), uniform in −1…1."""
        return self._placed(torch.rand(self._n, *shape, generator=self._rng) * 2 - 1)

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a tensor over ranks, for values that must be equal on all of them; no gradient passes."""
        return self._ranks.mean(value)

    def whole(self, value: Tensor) -> Tensor:
        """The rows (n, …) of all ranks, for losses over the whole batch; no gradient passes."""
        return self._ranks.batch(value)

    @property
    def _n(self) -> int:
        return len(self.images) * self._ranks.world

    def _placed(self, value: Tensor) -> Tensor:
        return self._ranks.rows(value).to(self.images.device, self.images.dtype)
