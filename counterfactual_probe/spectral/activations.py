"""Spectral dependency ratios of activation maps and filters (S000 eq. 8), streamed over batches."""

from __future__ import annotations

import torch
from torch import Tensor

from ..base.errors import ProbeError
from ..generator.latents import Latents
from ..generator.layers import activation_of
from .tracing.autocorrelation import Overlap, autocorrelation, overlap
from .tracing.kernels import Convolution
from .tracing.network import Network
from .tracing.resampling import spread
from .tracing.routes import Route
from .tracing.tracer import ConvolutionMode


class _Listener(ConvolutionMode):
    """Adds up the autocorrelations of one layer's maps."""

    def __init__(self, label: str) -> None:
        super().__init__()
        self._label = label
        self.activation: Tensor | None = None

    def finished(self, name: str, number: int, output: object) -> object:
        if f"{name}#{number}" == self._label:
            activation = activation_of(output)
            self.activation = None if activation is None else activation.detach().clone()
        return output


def measure_activations(
    network: Network, label: str, route: Route, later: Convolution, inputs: Latents
) -> tuple[Tensor, int]:
    """(maps, filters) ratios of a layer's maps and of the convolution that reads them, and the number of samples."""
    later.require_finite()
    measured: list[tuple[Overlap, Tensor]] = []

    def run(batch: Latents, first: int) -> None:
        listener = _Listener(label)
        with listener.watching(network.modules):
            network.forward(batch, first=first)
        maps = listener.activation
        if maps is None or maps.dim() != 4:
            raise ProbeError(f"layer {label.rpartition('#')[0]!r} gives no maps (n, C, H, W); name one that does")
        if not bool(torch.isfinite(maps).all()):
            raise ProbeError(
                f"the maps of layer {label.rpartition('#')[0]!r} hold NaN or infinite values; check inputs"
            )
        meets = measured[0][0] if measured else activation_overlap(route, later, (maps.shape[2], maps.shape[3]))
        maps = maps.cpu() if maps.device.type == "mps" else maps  # which knows no double precision
        power = autocorrelation(maps.double(), meets.cause).sum(0).cpu()
        measured.append((meets, power))

    with network.session():
        n = network.batches(inputs, run)
    power = torch.stack([item for _, item in measured]).sum(0)
    return _ratios(measured[0][0], power, route, later), n


def activation_overlap(route: Route, later: Convolution, size: tuple[int, int]) -> Overlap:
    """Where a map of this size and the kernels meet."""
    stride = later.stride if later.transposed else (1, 1)
    up = route.up[0] * stride[0], route.up[1] * stride[1]
    down = route.down[0] * later.dilation[0], route.down[1] * later.dilation[1]
    kernel = route.kernel if route.kernel is None or not later.transposed else spread(route.kernel, later.stride)
    return overlap(size, up, later.size, down, kernel)


def _ratios(meets: Overlap, power: Tensor, route: Route, later: Convolution) -> Tensor:
    channels = range(len(power)) if route.channels is None else route.channels
    mids = [(source, place) for place, source in enumerate(channels) if source >= 0]
    sources, places = zip(*mids, strict=True)
    cause = meets.cause_spectrum(power[list(sources)])
    filters = meets.later_spectrum(autocorrelation(later.outgoing(places), meets.later))
    block = (cause[:, None] @ filters.mT)[:, 0]
    if later.groups == 1:
        return block
    ratio = torch.full((len(mids), later.out_channels), float("nan"), dtype=torch.float64)
    for row, (_, place) in enumerate(mids):
        ratio[row, later.outputs_of(place)] = block[row]
    return ratio
