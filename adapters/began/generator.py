"""Boundary-equilibrium GANs (Berthelot et al. 2017; S003, appendix C), from a state dict alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from counterfactual_probe.base.errors import ProbeError
from counterfactual_probe.generator.adapter import GeneratorAdapter
from counterfactual_probe.generator.state.settings import fresh_settings
from counterfactual_probe.generator.wrap import wrap
from counterfactual_probe.registry.folders import Architecture
from counterfactual_probe.registry.weights import built, first_names, require_image, tensors_only


def _convolutions(before: int, after: int, repeats: int) -> list[nn.Module]:
    """3×3 convolutions, each followed by an ELU; the first changes the number of channels."""
    stages: list[nn.Module] = []
    for i in range(repeats):
        stages += [nn.Conv2d(after if i else before, after, 3, padding=1), nn.ELU(inplace=True)]
    return stages


def _blocks(image_size: int, start: int) -> int:
    """The number of blocks: one for each size, from ``start`` to the image's."""
    count = (image_size // start).bit_length() if start > 0 else 0
    if count < 1 or start * 2 ** (count - 1) != image_size:
        raise ProbeError(
            f"images are {image_size}×{image_size} and the first maps {start}×{start}; give a size that is {start} "
            "doubled some number of times"
        )
    return count


class BEGANGenerator(nn.Module):
    """Latents (n, latent) to images: a fully connected layer ``h0``, then a block of convolutions for each size.

    Between blocks the size doubles (nearest neighbour). With ``skip``, ``h0`` is upsampled and concatenated to the
    input of every block but the first, so that no later layer is a full cut of the graph.
    """

    def __init__(
        self,
        latent: int = 64,
        width: int = 64,
        colours: int = 3,
        *,
        image_size: int = 64,
        start: int = 8,
        repeats: int = 2,
        skip: bool = True,
    ) -> None:
        super().__init__()
        blocks = _blocks(image_size, start)
        self.skip = skip
        self.h0 = nn.Sequential(nn.Linear(latent, width * start**2), nn.Unflatten(1, (width, start, start)))
        self.blocks = nn.ModuleList(
            nn.Sequential(*_convolutions(width * (2 if skip and i else 1), width, repeats)) for i in range(blocks)
        )
        self.image = nn.Conv2d(width, colours, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        h0 = self.h0(z)
        x: Tensor = self.blocks[0](h0)
        for i, block in enumerate(self.blocks[1:], 1):
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            if self.skip:
                x = torch.cat([x, F.interpolate(h0, scale_factor=2.0**i, mode="nearest")], 1)
            x = block(x)
        images: Tensor = self.image(x)
        return images


class BEGANEncoder(nn.Module):
    """Images to codes (n, latent): blocks of width, 2·width, … channels, with convolutions of stride 2 between them."""

    def __init__(self, latent: int, width: int, colours: int, *, image_size: int, start: int, repeats: int) -> None:
        super().__init__()
        blocks = _blocks(image_size, start)
        stages: list[nn.Module] = _convolutions(colours, width, 1)
        for i in range(1, blocks + 1):
            stages += _convolutions(i * width, i * width, repeats)
            if i < blocks:
                stages += [nn.Conv2d(i * width, (i + 1) * width, 3, stride=2, padding=1), nn.ELU(inplace=True)]
        self.convolutions = nn.Sequential(*stages, nn.Flatten())
        self.code = nn.Linear(blocks * width * start**2, latent)

    def forward(self, images: Tensor) -> Tensor:
        codes: Tensor = self.code(self.convolutions(images))
        return codes


class BEGANDiscriminator(nn.Module):
    """An autoencoder of images; its decoder has the generator's architecture, but its own weights."""

    def __init__(
        self,
        latent: int = 64,
        width: int = 64,
        colours: int = 3,
        *,
        image_size: int = 64,
        start: int = 8,
        repeats: int = 2,
        skip: bool = True,
    ) -> None:
        super().__init__()
        self.encoder = BEGANEncoder(latent, width, colours, image_size=image_size, start=start, repeats=repeats)
        self.decoder = BEGANGenerator(
            latent, width, colours, image_size=image_size, start=start, repeats=repeats, skip=skip
        )

    def forward(self, images: Tensor) -> Tensor:
        reconstructions: Tensor = self.decoder(self.encoder(images))
        return reconstructions


@fresh_settings()
def began(
    state_dict: Mapping[str, Any], *, device: torch.device | str | None = None, name: str = "began"
) -> GeneratorAdapter:
    """A generator from the state dict of a :class:`BEGANGenerator`; all its arguments follow from the tensors' shapes.

    >>> from counterfactual_probe.adapters.began import BEGANGenerator, began
    >>> gen = began(BEGANGenerator(16, 8, 1, image_size=16).state_dict())
    >>> gen.image_size, list(gen.layers)
    ((1, 16, 16), ['h0', 'blocks.0.1', 'blocks.0.3', 'blocks.1.1', 'blocks.1.3'])

    ``layers`` lists ``h0`` and the ELUs; latents are uniform in −1…1.

    Raises:
        ProbeError: the tensors are not those of a BEGAN; the message says what differs.
    """
    state = tensors_only(state_dict)
    arguments = _generator_arguments(state)
    require_image(arguments["image_size"], arguments["width"], "a BEGAN")
    module = built(lambda: BEGANGenerator(**arguments), state, "a BEGAN generator of its kernels' sizes")
    latent = state["h0.0.weight"].shape[1]
    elus = [key for key, part in module.named_modules() if isinstance(part, nn.ELU)]
    return wrap(
        module.eval(),
        partial(_uniform, latent=latent),
        layers=["h0", *elus],
        device=device,
        name=name,
    )


@fresh_settings()
def began_discriminator(state_dict: Mapping[str, Any]) -> BEGANDiscriminator:
    """The discriminator with this state dict, such as the file ``discriminator.safetensors`` of a trained BEGAN.

    >>> from counterfactual_probe.adapters.began import BEGANDiscriminator, began_discriminator
    >>> module = began_discriminator(BEGANDiscriminator(16, 8, 1, image_size=16).state_dict())
    >>> module(torch.zeros(5, 1, 16, 16)).shape
    torch.Size([5, 1, 16, 16])

    Raises:
        ProbeError: the tensors are not those of a BEGAN's discriminator.
    """
    state = tensors_only(state_dict)
    decoder = {key.removeprefix("decoder."): value for key, value in state.items() if key.startswith("decoder.")}
    arguments = _generator_arguments(decoder)
    return built(
        lambda: BEGANDiscriminator(**arguments), state, "a BEGAN's discriminator of its decoder's sizes"
    ).eval()


def _uniform(n: int, rng: torch.Generator, *, latent: int) -> Tensor:
    return torch.rand(n, latent, generator=rng) * 2 - 1


def _generator_arguments(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The arguments of a BEGANGenerator with these tensors."""
    matches = [re.fullmatch(r"blocks\.([0-9]{1,3})\.([0-9]{1,3})\.weight", key) for key in state]
    numbers = [(int(match[1]), int(match[2])) for match in matches if match]
    count = len({block for block, _ in numbers})
    first, last = state.get("h0.0.weight"), state.get("image.weight")
    if first is None or last is None or first.dim() != 2 or last.dim() != 4 or (0, 0) not in numbers:
        raise ProbeError(
            f"the state dict holds no h0.0.weight, blocks.0.0.weight and image.weight of a BEGAN (its first keys: "
            f"{first_names(state)}); give that of its generator"
        )
    width, blocks = last.shape[1], 1 + max(block for block, _ in numbers)
    if blocks != count:  # a number alone must not decide how large a module is made
        raise ProbeError(f"the state dict holds {count} blocks, numbered up to {blocks - 1}; give all from 0 upwards")
    start = isqrt(max(first.shape[0] // max(width, 1), 1))
    if width < 1 or first.shape[0] != width * start**2:
        raise ProbeError(
            f"h0 maps {first.shape[1]} latents to {first.shape[0]} values and the image is made from {width} channels; "
            "in a BEGAN h0 has these channels × size² outputs"
        )
    joined = state.get("blocks.1.0.weight")
    return {
        "latent": first.shape[1],
        "width": width,
        "colours": last.shape[0],
        "image_size": start * 2 ** (blocks - 1),
        "start": start,
        "repeats": sum(block == 0 for block, _ in numbers),
        "skip": joined is None or joined.shape[1] == 2 * width,
    }


ARCHITECTURE = Architecture(
    "began",
    lambda config, tensors, device: began(tensors, device=device, name=str(config.get("name", "began"))),
    discriminator=began_discriminator,
)
