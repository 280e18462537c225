"""Variational autoencoders as in S001 (its Table 1 and Fig. 4), from a state dict alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn

from counterfactual_probe.base.errors import ProbeError
from counterfactual_probe.generator.adapter import GeneratorAdapter
from counterfactual_probe.generator.encoding import encoded
from counterfactual_probe.generator.latents import standard_normal, stream_seed
from counterfactual_probe.generator.state.settings import fresh_settings
from counterfactual_probe.registry.folders import Architecture
from counterfactual_probe.registry.weights import built, first_names, require_image, tensors_only

POSTERIOR = 3  # random stream; 0 to 2 are base, source and noise


def _doublings(image_size: int, start: int, most: int) -> int:
    """How many times ``start`` is doubled to reach the image's size."""
    doublings = (image_size // start).bit_length() - 1 if start > 0 else -1
    if not 0 <= doublings <= most or start * 2**doublings != image_size:
        raise ProbeError(
            f"images are {image_size}×{image_size}, and {most} deconvolutions start from {start}×{start}; give a size "
            f"that is {start} doubled at most {most} times"
        )
    return doublings


def _with_norm(layer: nn.Module, width: int, *, norm: bool) -> list[nn.Module]:
    return [layer, *([nn.BatchNorm2d(width)] if norm else []), nn.ReLU(inplace=True)]


class VAEDecoder(nn.Module):
    """``level1`` is a fully connected layer to maps of start×start; further levels, and ``image``, are deconvolutions.

    The first deconvolutions (4×4) double the size until it is the image's; the rest (3×3) keep it.
    """

    def __init__(
        self, latent: int, widths: Sequence[int], colours: int, image_size: int, start: int, *, norm: bool
    ) -> None:
        super().__init__()
        doublings = _doublings(image_size, start, len(widths))
        unflatten = nn.Unflatten(1, (widths[0], start, start))
        first = nn.Sequential(nn.Linear(latent, widths[0] * start**2), unflatten)
        self.level1 = nn.Sequential(*_with_norm(first, widths[0], norm=norm))
        self.levels = ["level1"]
        for i, (before, after) in enumerate(zip(widths, [*widths[1:], colours], strict=True)):
            kernel, stride = (4, 2) if i < doublings else (3, 1)
            deconvolution = nn.ConvTranspose2d(before, after, kernel, stride, 1)
            if i == len(widths) - 1:
                self.image = nn.Sequential(deconvolution, nn.Tanh())
            else:
                self.levels.append(f"level{i + 2}")
                self.add_module(self.levels[-1], nn.Sequential(*_with_norm(deconvolution, after, norm=norm)))

    def forward(self, z: Tensor) -> Tensor:
        x = z
        for name in self.levels:
            x = self.get_submodule(name)(x)
        images: Tensor = self.image(x)
        return images


class VAEEncoder(nn.Module):
    """The decoder reversed: convolutions, then the mean and log-variance of the posterior."""

    def __init__(
        self, latent: int, widths: Sequence[int], colours: int, image_size: int, start: int, *, norm: bool
    ) -> None:
        super().__init__()
        doublings = _doublings(image_size, start, len(widths))
        stages: list[nn.Module] = []
        before = colours
        for i, after in reversed(list(enumerate(widths))):
            kernel, stride = (4, 2) if i < doublings else (3, 1)
            stages += _with_norm(nn.Conv2d(before, after, kernel, stride, 1), after, norm=norm)
            before = after
        self.convolutions = nn.Sequential(*stages, nn.Flatten())
        self.posterior = nn.Linear(widths[0] * start**2, 2 * latent)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.posterior(self.convolutions(images)).chunk(2, 1)
        return mean, log_variance


class VAE(nn.Module):
    """Encoder and decoder; ``forward`` maps latents (n, latent) to images. The defaults are S001's VAE for CelebA.

    Table 1 gives four deconvolutions, 64, 64, 32, 16 and 3 channels, and maps of 8, 16, 32 and 64 pixels. This is read
    as 64 channels of 8×8, 64 of 16×16, 32 of 32×32 and 16 of 64×64, followed by a deconvolution that keeps the size.
    S001's VAE for CIFAR-10 is ``VAE(widths=(64, 32, 16), image_size=32, start=4)``.
    """

    def __init__(
        self,
        latent: int = 128,
        widths: Sequence[int] = (64, 64, 32, 16),
        colours: int = 3,
        *,
        image_size: int = 64,
        start: int = 8,
        norm: bool = True,
    ) -> None:
        super().__init__()
        self.encoder = VAEEncoder(latent, widths, colours, image_size, start, norm=norm)
        self.decoder = VAEDecoder(latent, widths, colours, image_size, start, norm=norm)

    def forward(self, z: Tensor) -> Tensor:
        images: Tensor = self.decoder(z)
        return images

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the posterior, (n, latent) each."""
        mean, log_variance = self.encoder(images)
        return mean, log_variance


class VAEAdapter(GeneratorAdapter):
    """A generator that also encodes images into latents, for hybrids of given images (S001 §4)."""

    module: VAE

    def encode(self, images: Tensor, *, seed: int | None = None) -> Tensor:
        """Latents (n, latent) of images (n, C, H, W): the posterior's means or, with a seed, samples of it.

        >>> z1, z2 = gen.encode(photos), gen.encode(others)  # doctest: +SKIP

        Raises:
            ProbeError: the images' size, number of colours or range is not the generator's.
        """
        mean, log_variance = encoded(self, images, self.module.encode)
        if seed is None:
            return mean
        rngs = [torch.Generator().manual_seed(stream_seed(seed, POSTERIOR, i)) for i in range(len(mean))]
        noise = torch.stack([torch.randn(mean.shape[1], generator=rng) for rng in rngs])
        return mean + (log_variance / 2).exp() * noise.to(mean)


@fresh_settings()
def vae(state_dict: Mapping[str, Any], *, device: torch.device | str | None = None, name: str = "vae") -> VAEAdapter:
    """A generator from the state dict of a :class:`VAE`; all sizes follow from the tensors' shapes.

    >>> from counterfactual_probe.adapters.vae import VAE, vae
    >>> gen = vae(VAE(16, (8, 4), 1, image_size=16, start=4).state_dict())
    >>> gen.image_size, {name: info.size for name, info in gen.layers.items()}
    ((1, 16, 16), {'decoder.level1': (4, 4), 'decoder.level2': (8, 8)})
    >>> gen.encode(gen(gen.sample(2))).shape
    torch.Size([2, 16])

    ``layers`` lists the decoder's levels; latents are standard normal.

    Raises:
        ProbeError: the tensors are not those of a VAE; the message says what differs.
    """
    state = tensors_only(state_dict)
    arguments = _vae_arguments(state)
    require_image(arguments["image_size"], arguments["widths"][-1], "a VAE")
    module = built(lambda: VAE(**arguments), state, "a VAE of its kernels' sizes")
    latent = module.encoder.posterior.out_features // 2
    gen = VAEAdapter(
        module.eval(),
        partial(standard_normal, size=(latent,)),
        layers=[f"decoder.{level}" for level in module.decoder.levels],
        device=device,
        name=name,
    )
    gen.make_partner = partial(gen.module.get_submodule, "encoder")
    return gen


def _vae_arguments(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The arguments of a VAE with these tensors, derived from the decoder's."""
    first = state.get("decoder.level1.0.0.weight")
    names = ["decoder.image.0.weight"]
    while (name := f"decoder.level{len(names) + 1}.0.weight") in state:
        names.insert(-1, name)
    kernels = [state[name] for name in names if name in state]
    if first is None or len(kernels) < len(names) or any(kernel.dim() != 4 for kernel in kernels) or first.dim() != 2:
        raise ProbeError(
            f"the state dict holds no decoder.level1.0.0.weight and decoder.image.0.weight of a VAE (its first keys: "
            f"{first_names(state)}); give that of a VAE, encoder and decoder"
        )
    widths = [kernel.shape[0] for kernel in kernels]
    sides = [kernel.shape[2] for kernel in kernels]
    start = isqrt(max(first.shape[0] // max(widths[0], 1), 1))
    doublings = sides.count(4)
    if first.shape[0] != widths[0] * start**2 or sides != [4] * doublings + [3] * (len(sides) - doublings):
        raise ProbeError(
            f"the decoder maps {first.shape[1]} latents to {first.shape[0]} values, and its kernels have shapes "
            f"{[tuple(kernel.shape) for kernel in kernels]}; in a VAE the first layer has channels × size² outputs, "
            "and 4×4 kernels come before 3×3 ones"
        )
    return {
        "latent": first.shape[1],
        "widths": widths,
        "colours": kernels[-1].shape[1],
        "image_size": start * 2**doublings,
        "start": start,
        "norm": "decoder.level1.1.weight" in state,
    }


ARCHITECTURE = Architecture(
    "vae", lambda config, tensors, device: vae(tensors, device=device, name=str(config.get("name", "vae")))
)
