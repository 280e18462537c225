"""A regulariser for any training loop: filters that are independent of the maps they read (S000 §4.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from ..base.errors import ProbeError, nearest
from .loss import Form, require_form, spectral_independence_loss
from .tracing.operations import pair
from .tracing.resampling import spread

Reduction: TypeAlias = Literal["sum", "mean"]
Convolution: TypeAlias = nn.Conv2d | nn.ConvTranspose2d


class SpectralIndependence:
    """Watches what convolutions read in your own forward passes, and how far their filters are from independent of it.

    >>> import torch, counterfactual_probe as cp
    >>> decoder = torch.nn.Sequential(
    ...     torch.nn.ConvTranspose2d(5, 6, 4), torch.nn.ReLU(), torch.nn.ConvTranspose2d(6, 3, 4, stride=2, padding=1)
    ... )
    >>> with cp.SpectralIndependence(decoder, form="scalar") as independence:
    ...     images = decoder(torch.randn(8, 5, 1, 1))
    ...     loss = images.square().mean() + 0.1 * independence.loss()  # your loss, and this one
    >>> loss.backward()
    >>> independence.layers
    ('2',)

    Hooks are there inside of ``with`` alone, and nothing is computed before :meth:`loss` is called. It speaks of the
    last pass; of a layer that runs several times in it, of the last call. Weights are taken as they are when it is
    called, so that an optimiser may step in between, as in the paper's alternation.

    Args:
        module: any module; the convolutions are found by name.
        layers: names of Conv2d and ConvTranspose2d with kernels larger than 1×1. By default all of them but the first,
            in the order in which the module holds them: in S000 the coarsest is left out.
        form: of :func:`spectral_independence_loss`.
        reduction: "sum" over all pairs of a map and a filter, as in the paper, or their "mean".
        detach: whether the loss moves filters alone, as in the paper, or also what makes the maps.
        gather: a function from a layer's maps (n, in, H, W) to those of all processes. It is needed where each process
            sees a part of the batch and the loss has a backward pass of its own: DistributedDataParallel averages only
            gradients that go through itself.
    """

    def __init__(
        self,
        module: nn.Module,
        layers: Sequence[str] | None = None,
        *,
        form: Form = "printed",
        reduction: Reduction = "sum",
        detach: bool = True,
        gather: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        require_form(form)
        if reduction not in get_args(Reduction):
            raise ProbeError(f"reduction is {reduction!r}; give one of {', '.join(map(repr, get_args(Reduction)))}")
        self.form, self.reduction, self.detach, self.gather = form, reduction, detach, gather
        self._module = module
        self._convolutions = _chosen(module, layers)
        self._read: dict[str, tuple[Tensor, int]] = {}
        self._handles: list[Any] = []

    def __repr__(self) -> str:
        return f"SpectralIndependence({self.form}, of {', '.join(self.layers)})"

    @property
    def layers(self) -> tuple[str, ...]:
        """The convolutions that are watched."""
        return tuple(self._convolutions)

    @property
    def filters(self) -> list[nn.Parameter]:
        """The parameters behind the filters, without biases: for an optimiser of their own."""
        parameters = [
            p for each in self._convolutions.values() for name, p in each.named_parameters() if name != "bias"
        ]
        return list(dict.fromkeys(parameters))

    def __enter__(self) -> SpectralIndependence:
        if self._handles:
            raise ProbeError("this SpectralIndependence is already entered; make another one, or leave it first")
        # What a layer read in an earlier pass says nothing about one in which it does not run.
        self._handles.append(self._module.register_forward_pre_hook(lambda *_: self._read.clear()))
        for name, convolution in self._convolutions.items():
            hook = self._hook(name)
            self._handles.append(convolution.register_forward_pre_hook(hook, with_kwargs=True))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._read.clear()

    def loss(self, layer: str | None = None) -> Tensor:
        """The loss () of all layers, or of one, with a graph to the filters.

        Raises:
            ProbeError: no forward pass was watched, or none in which the layer ran; maps were overwritten since.
        """
        if layer is not None and layer not in self._convolutions:
            raise ProbeError(f"layer {layer!r} is not watched; name one of {', '.join(map(repr, self.layers))}")
        if not self._handles:
            raise ProbeError("the loss is asked for outside of `with`; ask inside, after a forward pass of the module")
        sums, pairs = zip(*(self._of(name) for name in (self.layers if layer is None else (layer,))), strict=True)
        total = torch.stack([each.to(sums[0]) for each in sums]).sum()  # layers may be on several devices
        return total / sum(pairs) if self.reduction == "mean" else total

    def _of(self, name: str) -> tuple[Tensor, int]:
        """The sum over all pairs of a map and a filter of one layer, and their number."""
        maps, convolution = self._maps(name), self._convolutions[name]
        stride = pair(convolution.stride) if isinstance(convolution, nn.ConvTranspose2d) else (1, 1)
        total, pairs = maps.new_zeros((), dtype=torch.promote_types(maps.dtype, torch.float32)), 0
        filters = _filters(convolution)
        for part, kernels in zip(maps.chunk(len(filters), 1), filters, strict=True):
            total = total + spectral_independence_loss(part, kernels, stride=stride, form=self.form)
            pairs += kernels.shape[0] * kernels.shape[1]
        return total, pairs

    def _maps(self, name: str) -> Tensor:
        if name not in self._read:
            ran = f"only {', '.join(map(repr, self._read))} did" if self._read else "call the module first"
            raise ProbeError(f"layer {name!r} has not run in the last forward pass; {ran}")
        maps, version = self._read[name]
        if _version(maps) != version:
            raise ProbeError(
                f"what layer {name!r} read was overwritten in place before the loss was asked for; let what follows "
                "it work on a copy"
            )
        maps = maps if maps.dim() == 4 else maps[None]
        return maps if self.gather is None else self.gather(maps)

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        def record(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            maps: Tensor = args[0] if args else kwargs["input"]
            maps = maps.detach() if self.detach else maps
            self._read[name] = maps, _version(maps)

        return record


def _version(maps: Tensor) -> int:
    return 0 if maps.is_inference() else maps._version


def _filters(convolution: Convolution) -> list[Tensor]:
    """Of each group the filters [in, out, kh, kw], with the zeros that a dilation puts into them."""
    weight, dilation = convolution.weight, pair(convolution.dilation)
    return [
        spread(part if isinstance(convolution, nn.ConvTranspose2d) else part.transpose(0, 1), dilation)
        for part in weight.chunk(convolution.groups, 0)
    ]


def _chosen(module: nn.Module, names: Sequence[str] | None) -> dict[str, Convolution]:
    known = {
        name: part
        for name, part in module.named_modules()
        if isinstance(part, (nn.Conv2d, nn.ConvTranspose2d)) and pair(part.kernel_size) != (1, 1)
    }
    if isinstance(names, str):
        raise ProbeError(f"layers is {names!r}; give a list of names, such as [{names!r}]")
    if names is None:
        names = list(known)[1:]
        if not names:
            raise ProbeError(
                f"the {type(module).__name__} has {len(known)} convolutions with kernels larger than 1×1, the first of "
                "which is left out by default; name layers"
            )
    if not names:
        raise ProbeError("layers is empty; name at least one, or leave it out for all but the first")
    for name in names:
        if name not in known:
            raise ProbeError(_why_not(module, name, known))
    return {name: known[name] for name in names}


def _why_not(module: nn.Module, name: str, known: dict[str, Convolution]) -> str:
    parts = dict(module.named_modules())
    inside = [other for other in known if other.startswith(f"{name}.")]
    cure = f"nearest: {nearest(str(name), inside or known)}"
    if name not in parts:
        return f"layer {name!r} is not in this {type(module).__name__}; {cure}"
    if isinstance(parts[name], (nn.Conv2d, nn.ConvTranspose2d)):
        return f"layer {name!r} has filters of 1×1, which treat all frequencies alike; name layers with larger kernels"
    return f"layer {name!r} is a {type(parts[name]).__name__}, and no Conv2d or ConvTranspose2d; {cure}"
