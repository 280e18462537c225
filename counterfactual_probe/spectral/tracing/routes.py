"""The route from a layer's channels to a later tensor: which of them, at what rate, through what."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from .autocorrelation import Size
from .resampling import convolved, spread


@dataclass(frozen=True, eq=False)
class Route:
    """How a source's channels reach a tensor, without a convolution between.

    Attributes:
        source: the convolution, or the layer, that the channels come from.
        channels: the source's channel in each of the tensor's, −1 where there is none; None if they are the same.
        up: how many times finer the tensor is than the source's output, and ``down``: how many times coarser.
        kernel: on the finer of the two grids, of interpolations and poolings on it; None is the delta.
        steps: what changes the rate, in words.
        blocked: what ends the route, in words: beyond it nothing can be said.
    """

    source: str
    channels: tuple[int, ...] | None = None
    up: Size = (1, 1)
    down: Size = (1, 1)
    kernel: Tensor | None = None
    steps: tuple[str, ...] = ()
    blocked: str | None = None

    @property
    def key(self) -> tuple[object, ...]:
        kernel = None if self.kernel is None else (tuple(self.kernel.shape), self.kernel.numpy().tobytes())
        return self.source, self.channels, self.up, self.down, kernel, self.steps, self.blocked

    def stopped(self, reason: str) -> Route:
        return self if self.blocked else dataclasses.replace(self, blocked=reason, channels=None, kernel=None)

    def upsampled(self, factor: Size, kernel: Tensor | None, step: str) -> Route:
        if self.blocked:
            return self
        if self.down != (1, 1):
            return self.stopped(f"{step} after {self.steps[-1]}: the resolution goes down and up again")
        finer = None if self.kernel is None else spread(self.kernel, factor)
        return self._changed(step, up=_times(self.up, factor), kernel=convolved(finer, kernel))

    def downsampled(self, factor: Size, kernel: Tensor | None, step: str) -> Route:
        if self.blocked:
            return self
        if self.up != (1, 1):
            return self.stopped(f"{step} after {self.steps[-1]}: the resolution goes up and down again")
        wider = None if kernel is None else spread(kernel, self.down)
        return self._changed(step, down=_times(self.down, factor), kernel=convolved(self.kernel, wider))

    def _changed(self, step: str, **changes: object) -> Route:
        return dataclasses.replace(self, steps=(*self.steps, step), **changes)  # type: ignore[arg-type]

    def selected(self, channels: Sequence[int]) -> Route:
        """The route to a tensor made of some of the channels; −1 stands for none of them."""
        if self.blocked:
            return self
        own = channels if self.channels is None else [self.channels[c] if c >= 0 else -1 for c in channels]
        return dataclasses.replace(self, channels=tuple(own))

    @property
    def empty(self) -> bool:
        """Whether no channel of the source is left."""
        return self.channels is not None and all(channel < 0 for channel in self.channels)


Routes = tuple[Route, ...]


def joined(several: Iterable[Routes]) -> Routes:
    """All the routes, equal ones once."""
    found: dict[tuple[object, ...], Route] = {}
    for routes in several:
        for route in routes:
            if not route.empty:
                found.setdefault(route.key, route)
    return tuple(found.values())


def _times(one: Size, two: Size) -> Size:
    return one[0] * two[0], one[1] * two[1]
