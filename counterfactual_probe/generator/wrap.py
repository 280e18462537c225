"""How a module becomes a generator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .adapter import GeneratorAdapter, SampleLatents


def wrap(
    module: nn.Module,
    sample_latents: SampleLatents,
    *,
    layers: str | Sequence[str] | None = None,
    image: Callable[[Any], Tensor] | None = None,
    image_range: tuple[float, float] = (-1.0, 1.0),
    axes: Mapping[str, str] | None = None,
    noise: Literal["latent"] | None = None,
    device: torch.device | str | None = None,
    name: str | None = None,
) -> GeneratorAdapter:
    """Make any image-generating ``nn.Module`` a generator that can be probed.

    >>> import torch, counterfactual_probe as cp
    >>> module = torch.nn.Sequential(torch.nn.ConvTranspose2d(8, 6, 4), torch.nn.ReLU(),
    ...                              torch.nn.ConvTranspose2d(6, 3, 4, 2, 1), torch.nn.Tanh())
    >>> gen = cp.wrap(module, lambda n, rng: torch.randn(n, 8, 1, 1, generator=rng))
    >>> gen(gen.sample(2, seed=0)).shape
    torch.Size([2, 3, 8, 8])

    Args:
        module: the generator. It is run in eval mode and left exactly as it was found. Wrappers of
            ``torch.compile`` and ``DataParallel`` are looked through (hooks are ignored inside them).
        sample_latents: ``(n, rng) -> latents`` with ``rng`` a CPU ``torch.Generator``; latents are a
            tensor, a tuple (``module(*t)``) or a dict (``module(**d)``) of tensors, sample first,
            conditions such as the class included. They are moved to the module's device, and floating
            ones cast to its dtype.
        layers: name or names of the layers to offer; by default every layer with channels that is
            computed exactly once per forward. ``"relu#2"`` is the second call of a submodule, ``"block[1]"`` the
            second entry of an output that is a tuple, ``"rnn[1][0]"`` one of a nested tuple, ``"to_out<"`` the input of
            a submodule.
        image: output -> (n, C, H, W) tensor. By default understands a tensor, a tuple (its first
            4-D tensor), an object with ``.sample`` or ``.images``, and a dict.
        image_range: smallest and largest pixel value; recorded with every result.
        axes: what the dimensions of layers' activations are, by patterns of their names:
            ``{"blk*": "n h w c", "unet.*": "(2 n) c h w"}``. ``n`` are the samples, ``c`` the channels, and parts in
            brackets are folded into one dimension, the last running fastest. By default found from the forward:
            convolutions have channels in dimension 1, linear maps in the last. Where nothing tells, it is 1, and
            the last for tokens, with a warning (``ChannelsGuessed``) when the layer is used.
        noise: ``"latent"`` makes what the forward draws by itself, such as the first noise of a sampler, a part of
            the latents: base and source then differ in it. By default they share it.
        device: run here, on a copy; by default where the module is, on the module itself.
        name: what results call it; by default the class name.

    Raises:
        ProbeError: nothing image-like comes out, a layer does not exist, or two runs, or two draws of
            a latent, from the same random state differ.
    """
    return GeneratorAdapter(
        module,
        sample_latents,
        layers=layers,
        image=image,
        image_range=image_range,
        axes=axes,
        noise=noise,
        device=device,
        name=name,
    )
