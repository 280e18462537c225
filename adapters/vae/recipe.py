"""How variational autoencoders are trained: S001, Table 1."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from counterfactual_probe.base.errors import ProbeError, whole
from counterfactual_probe.training import Networks, Recipe, Step, Trainable, Update

from ..cards import trained as cards
from .generator import VAE


def vae_losses(reconstructions: Tensor, images: Tensor, mean: Tensor, log_variance: Tensor) -> tuple[Tensor, Tensor]:
    """Squared error (mean over pixels and colours) and KL from the prior (sum over dimensions); both are means over
    images.

    The KL of a Gaussian posterior is ½ Σ (μ² + σ² − log σ² − 1) (Kingma and Welling 2014, appendix B).
    """
    error = (reconstructions - images).square().mean()
    divergence = (mean.square() + log_variance.exp() - log_variance - 1).sum(1).mean() / 2
    return error, divergence


def halved(width: int, image_size: int) -> tuple[int, tuple[int, ...]]:
    """The first maps' size and the widths of a decoder as in S001: 64-64-32-16 from 8×8, or 64-32-16 from 4×4."""
    start = 8 if image_size >= 64 else 4
    doublings = (image_size // start).bit_length() - 1
    if doublings < 1 or start * 2**doublings != image_size:
        raise ProbeError(f"images are {image_size}×{image_size}; give a size of 8, 16, 32, 64, 128, …")
    falling = [max(1, width // 2**i) for i in range(doublings)]
    return start, (width, *falling) if start == 8 else tuple(falling)


@dataclass
class VAERecipe(Recipe):
    """A β-VAE: squared error + β · KL.

    Attributes:
        beta: weight of the KL.
        latent: dimensions of the code.
        width: channels of the widest layer; the others follow as in S001's Table 1.
        norm: whether to use batch norm; with it, reconstructions from posterior means are darker than the images.
    """

    architecture: ClassVar[str] = "vae"
    beta: float = 0.0005
    latent: int = 128
    width: int = 64
    norm: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("beta")
        for name in ("latent", "width"):
            whole(getattr(self, name), name, 1)

    def networks(self, image: tuple[int, int, int]) -> dict[str, nn.Module]:
        start, widths = halved(self.width, image[1])
        module = VAE(self.latent, widths, image[0], image_size=image[1], start=start, norm=self.norm)
        return {"encoder": module.encoder, "decoder": module.decoder}

    def optimisers(self, networks: Mapping[str, nn.Module]) -> dict[str, torch.optim.Optimizer]:
        both = [parameter for network in networks.values() for parameter in network.parameters()]
        return {"vae": torch.optim.Adam(both, self.lr, betas=(0.5, 0.999), fused=True)}

    def step(self, step: Step) -> Iterator[Update]:
        mean, log_variance = step.networks["encoder"](step.images)
        codes = mean + (log_variance / 2).exp() * step.normal(self.latent)
        error, divergence = vae_losses(step.networks["decoder"](codes), step.images, mean, log_variance)
        loss = error + self.beta * divergence
        yield Update("vae", loss, {"loss": loss, "reconstruction": error, "kl": divergence})

    def samples(self, networks: Networks, step: Step) -> Tensor:
        images: Tensor = networks["decoder"](step.normal(self.latent))
        return images

    def reconstructions(self, networks: Networks, images: Tensor) -> Tensor:
        mean, _ = networks["encoder"](images)
        made: Tensor = networks["decoder"](mean)
        return made

    def files(self, networks: Mapping[str, nn.Module]) -> dict[str, dict[str, Tensor]]:
        model = {
            f"{name}.{key}": value for name, network in networks.items() for key, value in network.state_dict().items()
        }
        return {"model": model}


FACES = "generator:dcgan-faces"
CIFAR = "CIFAR-10 as a folder or zip of images, such as cifar10-images.zip/train"

ANY = Trainable("vae", "images by a β-VAE", VAERecipe)
VAE_FACES = Trainable(
    cards.VAE_FACES.name,
    cards.VAE_FACES.summary,
    VAERecipe,
    data=FACES,
    images=20_000,
    size=64,
    steps=3_500,
    precision="bf16",
)
VAE_FACES_SHARP = replace(
    VAE_FACES,
    name=cards.VAE_FACES_SHARP.name,
    summary=cards.VAE_FACES_SHARP.summary,
    settings={"beta": 0.00005},
    steps=2_500,
)
VAE_CIFAR10 = Trainable(
    cards.VAE_CIFAR10.name,
    cards.VAE_CIFAR10.summary,
    VAERecipe,
    data_wanted=CIFAR,
    size=32,
    steps=6_000,
    precision="bf16",
)
