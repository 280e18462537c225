"""Losses that make filters spectrally independent of the activations they read (S000 eq. 9)."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from ..base.errors import ProbeError, one_of
from .tracing.autocorrelation import Overlap, autocorrelation, overlap
from .tracing.operations import pair

Form: TypeAlias = Literal["printed", "bartlett", "scalar"]


def spectral_independence_loss(
    activations: Tensor, weight: Tensor, *, stride: int | tuple[int, int] = 2, form: Form = "printed"
) -> Tensor:
    """A differentiable penalty on filters that favour, or avoid, the frequencies of the maps they read (S000 eq. 9).

    >>> import torch, counterfactual_probe as cp
    >>> convolution = torch.nn.ConvTranspose2d(6, 3, 4, stride=2, padding=1)
    >>> activations = torch.randn(5, 6, 8, 8).relu()
    >>> loss = cp.spectral_independence_loss(activations, convolution.weight, stride=2)
    >>> loss.backward()  # to be added to the network's own loss
    >>> convolution.weight.grad.shape
    torch.Size([6, 3, 4, 4])

    With P the maps' power spectrum over its mean, summed over all pairs of a map and its filter f:

    - ``"printed"``: ⟨|f̂(u)|²·(P(su) − 1)²⟩ with P of the maps' mean over the batch, as eq. 9 has it. Its minimum is not
      where the ratio is 1: it is small where filters are.
    - ``"bartlett"``: the same with P the mean power spectrum of the maps.
    - ``"scalar"``: (⟨|f̂|²⟩(ρ − 1))², which is least where the ratio ρ of eq. 8 is 1, whatever a filter's size.

    Exact (conventions 20): transforms are of zero-padded maps and nothing is sampled too coarsely. Dead maps add
    nothing. Half precision is taken to float32 inside.

    Args:
        activations: (n, in, H, W), what the convolution reads; detach them to move the filters alone.
        weight: [in, out, kh, kw], as of a ConvTranspose2d; of a Conv2d give ``weight.transpose(0, 1)``.
        stride: of the transposed convolution; 1 for a plain one.
    """
    steps = _checked_stride(activations, weight, stride, form)
    kind = torch.promote_types(torch.promote_types(activations.dtype, weight.dtype), torch.float32)
    with torch.autocast(activations.device.type, enabled=False):
        maps, kernels = activations.to(kind), weight.to(kind)
        meets = overlap((maps.shape[2], maps.shape[3]), steps, (weight.shape[2], weight.shape[3]), (1, 1))
        if form == "scalar":
            return _scalar(maps, kernels, meets)
        reach = [(k - 1) // s for k, s in zip(kernels.shape[2:], steps, strict=True)]
        deviation = _squared_deviation(maps, (reach[0], reach[1]), mean_first=form == "printed")
        # Lags of the filters that meet the maps', and those of the maps, in the same order.
        coarse = [(y // steps[0], x // steps[1]) for y, x in meets.later]
        power = torch.stack([deviation[..., y, x] for y, x in coarse], -1)
        energy = autocorrelation(kernels, meets.later).sum(1) * meets.weights.to(kernels)
        total: Tensor = (power * energy).sum()
        return total


def _scalar(maps: Tensor, kernels: Tensor, meets: Overlap) -> Tensor:
    cause = (autocorrelation(maps, meets.cause).mean(0)) @ meets.mixing.to(maps)
    power = _over(cause, cause[..., :1])
    beside = (power * meets.weights.to(maps))[:, None, 1:] * autocorrelation(kernels, meets.later)[..., 1:]
    total: Tensor = (beside.sum(-1) ** 2).sum()  # the lag 0 is the 1 that is subtracted
    return total


def _squared_deviation(maps: Tensor, reach: tuple[int, int], *, mean_first: bool) -> Tensor:
    """The autocorrelation of (P − 1)², for each map (in, M, M); right up to lags of ``reach``.

    P has lags up to n − 1 and its square twice as many: on fewer points they would fall onto those wanted.
    """
    size = [2 * (n - 1) + a + 1 for n, a in zip(maps.shape[2:], reach, strict=True)]
    waves = torch.fft.fft2(maps.mean(0, keepdim=True) if mean_first else maps, s=size)
    power = (waves.real.square() + waves.imag.square()).mean(0)
    mean = power.mean((-2, -1), keepdim=True)
    alive = (mean > 0).to(power)
    deviation = (_over(power, mean) - alive).square()
    autocorrelation: Tensor = torch.fft.ifft2(deviation).real
    return autocorrelation


def _over(value: Tensor, mean: Tensor) -> Tensor:
    """A quotient that is 0, with gradient 0, where the divisor is."""
    alive = mean > 0
    return torch.where(alive, value / torch.where(alive, mean, torch.ones_like(mean)), torch.zeros_like(value))


def require_form(form: str) -> None:
    """Raise a ProbeError if there is no such form of the loss."""
    one_of(form, "form", get_args(Form))


def _checked_stride(activations: Tensor, weight: Tensor, stride: int | tuple[int, int], form: str) -> tuple[int, int]:
    require_form(form)
    for value, what in ((activations, "activations"), (weight, "the weight")):
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.is_meta:
            kind = f"{value.dtype} on {value.device}" if isinstance(value, Tensor) else type(value).__name__
            raise ProbeError(f"{what} are of {kind}; give a tensor of floating-point numbers")
    if activations.dim() != 4 or weight.dim() != 4:
        raise ProbeError(
            f"activations are {tuple(activations.shape)} and the weight {tuple(weight.shape)}; give (n, in, H, W) and "
            "[in, out, kh, kw]"
        )
    if activations.shape[1] != weight.shape[0]:
        cure = ", weight.transpose(0, 1) of a Conv2d" if activations.shape[1] == weight.shape[1] else ""
        raise ProbeError(
            f"activations have {activations.shape[1]} channels and the weight {tuple(weight.shape)} reads "
            f"{weight.shape[0]}; give a weight [in, out, kh, kw]{cure}"
        )
    try:
        steps = pair(stride)
    except (TypeError, IndexError, RuntimeError):
        steps = (0, 0)
    if min(steps) < 1:
        raise ProbeError(f"stride is {stride!r}; give an integer of at least 1, or one for each axis")
    return steps
