"""Layers as users see them: names, channels and sizes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor

from ...base.display.described import Described, Tabulated
from ...base.display.description import Description, Table
from .address import ALL_CALLS
from .dimensions import axes as ax


@dataclass(frozen=True)
class LayerInfo:
    """A layer's name, number of channels, and the size of one channel.

    >>> LayerInfo("main.8", 128, (16, 16))
    LayerInfo(name='main.8', channels=128, size=(16, 16), axes='n c h w')

    Attributes:
        size: (H, W) for images, (T,) for tokens and () for plain vectors.
        axes: what the dimensions of the activation are, ``n`` the samples and ``c`` the channels: ``"n c h w"``,
            ``"n t c"`` for tokens, ``"n h w c"``, ``"(2 n) c h w"`` for two halves of a batch that are one channel's.
            By default what conventions 1 say of this size.
        calls: how often it runs in a forward; all of them are one layer, ``"mid_block#*"``, if there are several.
        half: the half of a batch that guidance folds which is meant, such as "conditional"; None for both.
    """

    name: str
    channels: int
    size: tuple[int, ...]
    axes: str = ""
    calls: int = field(default=1, repr=False)
    half: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not self.axes:
            object.__setattr__(self, "axes", str(ax.standing(len(self.size) + 2)))

    @property
    def channel_dim(self) -> int:
        """The dimension of the channels among those of the activation."""
        return self._bound.channel_dim

    @property
    def is_image(self) -> bool:
        """Whether the activation is N×C×H×W."""
        return len(self.size) == 2 and self._bound.is_channels_first

    def channels_first(self, activation: Tensor) -> Tensor:
        """A view (samples, channels, …) of an activation; what is written to it is written to the activation."""
        return self._bound.channels_first(activation)

    def as_before(self, view: Tensor) -> Tensor:
        """An activation from values of the form of :meth:`channels_first`."""
        return self._bound.as_before(view)

    @property
    def fold(self) -> int | None:
        """The place among ``size`` of the halves that the batch is folded of; None where it is not."""
        return self._bound.fold

    @cached_property
    def _bound(self) -> ax.Axes:
        return ax.parse(self.axes).sized(self.channels, self.size)


class Layers(Described, Tabulated, dict[str, LayerInfo]):
    """Layers by name, in execution order: a dict that prints as a table.

    >>> print(Layers({"main.8": LayerInfo("main.8", 128, (16, 16))}))
    Layers(1)
      layer   channels   size
      main.8       128  16×16
    """

    def describe(self) -> Description:
        """A table of the layers; of their axes, if any are not the usual ones."""
        columns = ["layer", "channels", "size"]
        if any(info.calls > 1 for info in self.values()):
            columns.append("calls")
        if any(info.axes != LayerInfo(name, info.channels, info.size).axes for name, info in self.items()):
            columns.append("axes")
        rows = tuple(tuple(str(record[column]) for column in columns) for record in self.records())
        return Description("Layers", str(len(self)), table=Table(tuple(columns), rows))

    def records(self) -> Iterator[dict[str, Any]]:
        """One for each layer."""
        several = any(info.calls > 1 for info in self.values())
        for name, info in self.items():
            size = "×".join(map(str, info.size)) or "–"
            yield {"layer": name, "channels": info.channels, "size": size, "axes": info.axes} | (
                {"calls": info.calls} if several else {}
            )

    def __missing__(self, name: str) -> LayerInfo:
        """All calls of a layer that runs several times, by its bare name."""
        if (several := f"{name}{ALL_CALLS}") in self:
            return self[several]
        raise KeyError(name)
