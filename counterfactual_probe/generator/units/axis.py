"""The axes along which the units of a layer stand: channels, tokens or heads."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ...base.errors import ProbeError
from ..layers.info import LayerInfo

CHANNEL, TOKEN, HEAD, FEATURE = "channel", "token", "head", "feature"
AXES = (CHANNEL, TOKEN, HEAD)


@dataclass(frozen=True, eq=False)
class Coordinates:
    """How the units of a layer are told apart in its activation.

    >>> from torch import zeros
    >>> heads = Coordinates(LayerInfo("attention", 12, (5,)), HEAD, 3)
    >>> heads.units_first(zeros(2, 12, 5)).shape  # samples, heads, channels of a head, positions
    torch.Size([2, 3, 4, 5])

    Attributes:
        layer: the layer, whose activations come as views (samples, channels, …).
        kind: what the units are.
        count: how many there are.
    """

    layer: LayerInfo
    kind: str
    count: int

    @property
    def name(self) -> str:
        return self.layer.name

    def units_first(self, view: Tensor) -> Tensor:
        """The same values as (samples, units, …); what is written to it is written to the activation."""
        if self.kind == TOKEN:
            return view.transpose(1, 2)
        if self.kind == HEAD:
            return view.unflatten(1, (self.count, -1))  # type: ignore[no-untyped-call,no-any-return]
        return view

    def codes(self, view: Tensor) -> Tensor:
        """The values of the units, (samples, units, …)."""
        return self.units_first(view)


def channels_of(layer: LayerInfo) -> Coordinates:
    return Coordinates(layer, CHANNEL, layer.channels)


def tokens_of(layer: LayerInfo) -> Coordinates:
    """The positions of a layer of tokens; a ProbeError says which axis fits any other."""
    if len(layer.size) != 1:
        what = "maps" if layer.size else "vectors"
        place = ", and where= for a region of them" if layer.size else ""
        raise ProbeError(
            f"layer {layer.name!r} gives {what} ({layer.axes}, {'×'.join(map(str, layer.size)) or 'no'} positions) and "
            f"no tokens; use axis='channel'{place}"
        )
    return Coordinates(layer, TOKEN, layer.size[0])
