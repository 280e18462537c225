"""Where in a forward a layer's activation stands, and how it is read there and replaced."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .address import Address
from .entries import argument_at, tensor_at, with_argument_at, with_tensor_at
from .info import LayerInfo


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
