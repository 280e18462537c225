"""A convolution's 2-D kernels, by the channel they make or the channel they read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...base.errors import ProbeError
from .autocorrelation import Size


@dataclass(eq=False)
class Convolution:
    """A convolution that ran in a forward, with the weight that it used (normalised, under spectral norm).

    Conv2d weights are [out, in / groups, kh, kw], ConvTranspose2d's [in, out / groups, kh, kw] (conventions 18).
    """

    name: str
    weight: Tensor
    transposed: bool
    stride: Size
    dilation: Size
    groups: int
    input_size: Size
    output_size: Size

    @property
    def size(self) -> Size:
        """Of one kernel."""
        return self.weight.shape[2], self.weight.shape[3]

    @property
    def in_channels(self) -> int:
        return self.weight.shape[0] if self.transposed else self.weight.shape[1] * self.groups

    @property
    def out_channels(self) -> int:
        return self.weight.shape[1] * self.groups if self.transposed else self.weight.shape[0]

    @property
    def span(self) -> Size:
        """Of one kernel with its dilation."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.size, self.dilation, strict=True))  # type: ignore[return-value]

    def incoming(self, channels: Sequence[int]) -> Tensor:
        """The kernels that make these output channels: (channels, in / groups, kh, kw) in float64."""
        if not self.transposed:
            return self._double(self._plain[list(channels)])
        each = self.out_channels // self.groups
        index = torch.tensor(channels)
        return self._double(self._grouped()[index // each, :, index % each])

    def outgoing(self, channels: Sequence[int]) -> Tensor:
        """The kernels that read these input channels: (channels, out / groups, kh, kw) in float64."""
        if self.transposed:
            return self._double(self._plain[list(channels)])
        each = self.in_channels // self.groups
        index = torch.tensor(channels)
        return self._double(self._grouped()[index // each, :, index % each])

    def inputs_of(self, channel: int) -> slice:
        """Which input channels make an output channel."""
        each, group = self.in_channels // self.groups, channel // (self.out_channels // self.groups)
        return slice(group * each, (group + 1) * each)

    def outputs_of(self, channel: int) -> slice:
        """Which output channels an input channel goes into."""
        each, group = self.out_channels // self.groups, channel // (self.in_channels // self.groups)
        return slice(group * each, (group + 1) * each)

    @property
    def _plain(self) -> Tensor:
        """The weight as it is now, without gradients."""
        return self.weight.detach()

    def require_finite(self) -> None:
        if not bool(torch.isfinite(self._plain).all()):
            raise ProbeError(
                f"the kernels of {self.name!r} hold NaN or infinite values; give a model with good weights"
            )

    def _grouped(self) -> Tensor:
        first, *rest = self.weight.shape
        return self._plain.reshape(self.groups, first // self.groups, *rest)

    def _double(self, kernels: Tensor) -> Tensor:
        return kernels.to("cpu", torch.float64)
