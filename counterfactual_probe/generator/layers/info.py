"""Layers: names, channels and sizes as users see them, and where in a forward one stands."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from ...base.display.described import Described, Tabulated
from ...base.display.description import Description, Table
from . import axes as ax
from .address import Address, argument_at, tensor_at, with_argument_at, with_tensor_at


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
    """

    name: str
    channels: int
    size: tuple[int, ...]
    axes: str = ""

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
        if any(info.axes != LayerInfo(name, info.channels, info.size).axes for name, info in self.items()):
            columns.append("axes")
        rows = tuple(tuple(str(record[column]) for column in columns) for record in self.records())
        return Description("Layers", str(len(self)), table=Table(tuple(columns), rows))

    def records(self) -> Iterator[dict[str, Any]]:
        """One for each layer."""
        for name, info in self.items():
            size = "×".join(map(str, info.size)) or "–"
            yield {"layer": name, "channels": info.channels, "size": size, "axes": info.axes}


class ChannelsGuessed(UserWarning):
    """Nothing in the forward tells which dimension of a layer holds its channels."""


@dataclass(frozen=True)
class Site:
    """A layer, and where in the forward it stands.

    What a call hands over, below, is its output; for an input its arguments: positional ones, and those by name.

    Attributes:
        guessed: whether nothing in the forward tells which dimension holds the channels.
        is_only_call: whether the submodule runs once in a forward.
    """

    info: LayerInfo
    address: Address
    guessed: bool = False
    is_only_call: bool = True

    def warn_if_guessed(self) -> None:
        """Warn if the dimension of the channels is taken from the number of dimensions alone."""
        if self.guessed:
            warnings.warn(
                f"nothing in the forward tells which dimension of layer {self.info.name!r} holds its channels; "
                f"they are taken from {self.info.axes!r}. If that is right, confirm it with axes={{{self.info.name!r}: "
                f"{self.info.axes!r}}}; otherwise give its dimensions in order, n for samples and c for channels",
                ChannelsGuessed,
                stacklevel=4,
            )

    def read(self, handed: Any) -> Tensor | None:
        """The layer's activation in what a call hands over; None if there is no tensor."""
        read = argument_at if self.address.is_input else tensor_at
        return read(handed, self.address.entry)

    def replaced(self, handed: Any, activation: Tensor) -> Any:
        """What a call hands over with another activation of the layer."""
        replaced = with_argument_at if self.address.is_input else with_tensor_at
        return replaced(handed, self.address.entry, activation)
