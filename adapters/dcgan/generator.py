"""DCGAN generators (Radford et al. 2015), built from a state dict alone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from counterfactual_probe.base.errors import ProbeError
from counterfactual_probe.generator.adapter import GeneratorAdapter
from counterfactual_probe.generator.latents import standard_normal
from counterfactual_probe.generator.state.settings import fresh_settings
from counterfactual_probe.generator.wrap import wrap
from counterfactual_probe.registry.folders import Architecture
from counterfactual_probe.registry.regions import Mask, Regions, border_regions, grid
from counterfactual_probe.registry.weights import built, first_names, require_image, tensors_only


class DCGANGenerator(nn.Module):
    """4×4 transposed convolutions with batch norm and ReLU; a tanh at the end.

    The first makes maps of 4×4 from the latent (n, latent, 1, 1), and each later one doubles their size.
    ``main`` is numbered as in the usual implementations: ReLUs at 2, 5, 8, …
    """

    def __init__(self, latent: int, widths: Sequence[int], colours: int, *, bias: bool = False) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        previous, stride, padding = latent, 1, 0
        for width in widths:
            stages += [
                nn.ConvTranspose2d(previous, width, 4, stride, padding, bias=bias),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            ]
            previous, stride, padding = width, 2, 1
        stages += [nn.ConvTranspose2d(previous, colours, 4, stride, padding, bias=bias), nn.Tanh()]
        self.main = nn.Sequential(*stages)

    def forward(self, z: Tensor) -> Tensor:
        images: Tensor = self.main(z)
        return images


class DCGANDiscriminator(nn.Module):
    """The generator reversed: 4×4 convolutions with batch norm and leaky ReLU, from images to one logit each.

    There is no norm after the first convolution (Radford et al. 2015, section 3). ``main`` is numbered as in the usual
    implementations: kernels at 0, 2, 5, 8, …
    """

    def __init__(self, widths: Sequence[int], colours: int, *, bias: bool = False) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        before = colours
        for i, width in enumerate(widths):
            stages.append(nn.Conv2d(before, width, 4, 2, 1, bias=bias))
            stages += [nn.BatchNorm2d(width)] if i else []
            stages.append(nn.LeakyReLU(0.2, inplace=True))
            before = width
        self.main = nn.Sequential(*stages, nn.Conv2d(before, 1, 4, bias=bias), nn.Flatten(0))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.main(images)
        return logits


@fresh_settings()
def dcgan_discriminator(state_dict: Mapping[str, Any]) -> DCGANDiscriminator:
    """The discriminator with this state dict, such as the file ``discriminator.safetensors`` of a trained DCGAN.

    >>> from counterfactual_probe.adapters.dcgan import DCGANDiscriminator, dcgan_discriminator
    >>> dcgan_discriminator(DCGANDiscriminator([16, 32], 1).state_dict())(torch.zeros(5, 1, 16, 16)).shape
    torch.Size([5])

    Raises:
        ProbeError: the tensors are not those of such a discriminator.
    """
    state = tensors_only(state_dict)
    numbers = {int(key.split(".")[1]) for key, value in state.items() if re.fullmatch(r"main\.\d+\.weight", key)}
    kernels = [state[f"main.{number}.weight"] for number in sorted(numbers)]
    shapes = [tuple(kernel.shape) for kernel in kernels if kernel.dim() == 4]
    if len(shapes) < 2:
        raise ProbeError(
            f"the state dict holds no kernels main.0.weight, main.2.weight, … (its first keys: {first_names(state)}); "
            "give that of a DCGAN's discriminator"
        )
    widths, colours = [shape[0] for shape in shapes[:-1]], shapes[0][1]
    return built(
        lambda: DCGANDiscriminator(widths, colours, bias="main.0.bias" in state),
        state,
        "a DCGAN's discriminator of its kernels' sizes",
    ).eval()


@fresh_settings()
def dcgan(
    state_dict: Mapping[str, Any], *, device: torch.device | str | None = None, name: str = "dcgan"
) -> GeneratorAdapter:
    """A generator from the state dict of any DCGAN; depth, widths, latent and colours follow from the tensors' shapes.

    >>> from counterfactual_probe.adapters.dcgan import DCGANGenerator, dcgan
    >>> gen = dcgan(DCGANGenerator(16, [32, 16], 1).state_dict())
    >>> list(gen.layers), gen.image_size
    (['main.2', 'main.5'], (1, 16, 16))

    ``layers`` lists the ReLUs, the layers that the papers use; any other submodule can be named as well.

    Raises:
        ProbeError: the tensors are not those of a DCGAN; the message says what differs.
    """
    state = tensors_only(state_dict)
    prefix, kernels = numbered_kernels(state, "DCGAN")
    shapes = list(kernels.values())
    latent, widths, colours = shapes[0][0], [shape[1] for shape in shapes[:-1]], shapes[-1][1]
    require_image(4 * 2 ** len(widths), max(widths[-1:], default=colours), "a DCGAN")
    biased = f"{prefix}{min(kernels)}.bias" in state
    renamed = {f"main.{key.removeprefix(prefix)}": value for key, value in state.items()}
    module = built(
        lambda: DCGANGenerator(latent, widths, colours, bias=biased), renamed, "a DCGAN of its kernels' sizes"
    )
    return wrap(
        module.eval(),
        partial(standard_normal, size=(latent, 1, 1)),
        layers=[f"main.{3 * i + 2}" for i in range(len(widths))],
        device=device,
        name=name,
    )


def numbered_kernels(state: Mapping[str, Tensor], family: str) -> tuple[str, dict[int, tuple[int, ...]]]:
    """The prefix of a state dict's numbered submodules, and the shapes of their 4×4 kernels by number."""
    kernels = {
        int(match[1]): key
        for key, value in state.items()
        if value.dim() == 4 and (match := re.fullmatch(r"(?:\w+\.)?(\d+)\.weight", key))
    }
    if not kernels:
        raise ProbeError(
            f"the state dict holds no numbered 4-D kernels (its first keys: {first_names(state)}); give that of a "
            f"{family} generator, 'main.0.weight' and so on"
        )
    shapes = {number: tuple(state[kernels[number]].shape) for number in sorted(kernels)}
    chained = all(before[1] == after[0] for before, after in pairwise(shapes.values()))
    if not chained or any(shape[2:] != (4, 4) for shape in shapes.values()):
        raise ProbeError(
            f"the kernels have shapes {list(shapes.values())}; those of a {family} are (in, out, 4, 4), and each one's "
            "outputs are the next one's inputs"
        )
    first = min(kernels)
    return kernels[first].removesuffix(f"{first}.weight"), shapes


DCGAN = Architecture(
    "dcgan",
    lambda config, tensors, device: dcgan(tensors, device=device, **_name_option(config)),
    discriminator=dcgan_discriminator,
)


def _name_option(config: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": str(config["name"])} if "name" in config else {}


def face_regions() -> Regions:
    """Parts of the aligned faces, as masks drawn on the mean of many samples."""
    y, x = grid(64, 64)

    def ellipse(row: float, column: float, height: float, width: float) -> Mask:
        return ((y - row) / height) ** 2 + ((x - column) / width) ** 2 < 1

    eyes = ellipse(-0.15, -0.31, 0.2, 0.22) | ellipse(-0.15, 0.28, 0.2, 0.22)
    features = eyes | ellipse(0.6, 0.0, 0.3, 0.25)
    frame = (abs(x) > 0.78) | (y < -0.78)
    return Regions(
        {
            "eyes and mouth": features,
            "frame": frame,
            "face skin": ~frame & ~features,
            "left side": x < -0.5,
            "right side": x > 0.5,
            "top": y < -0.5,
            "bottom": y > 0.6,
            **border_regions(64, 64),
        },
        layer="main.8",
        expected=("eyes and mouth", "frame", "face skin"),
        note="The parts of the image that templates are compared with are masks drawn by hand on the mean face. "
        "“Face skin” is whatever is neither eyes and mouth nor frame, which makes a match with it easier.",
    )
