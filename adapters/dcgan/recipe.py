"""How DCGANs are trained: Radford et al. 2015, in the sizes of S001, Table 1."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from counterfactual_probe.base.errors import ProbeError, whole
from counterfactual_probe.training import Networks, Recipe, Step, Trainable, Update

from ..cards import trained as cards
from ..vae.recipe import CIFAR, FACES
from .generator import DCGANDiscriminator, DCGANGenerator


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """−log D(x) − log(1 − D(G(z))) of logits (Goodfellow et al. 2014, algorithm 1)."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def generator_loss(fake: Tensor) -> Tensor:
    """−log D(G(z)) of logits: the form that does not saturate (Goodfellow et al. 2014, section 3)."""
    return F.softplus(-fake).mean()


@dataclass
class DCGANRecipe(Recipe):
    """A DCGAN; its discriminator is saved beside it.

    Attributes:
        latent: dimensions of the latent.
        width: channels of the generator's first layer; each further layer has half as many.
        d_rate: the discriminator's learning rate as a multiple of ``lr``; below 1, a small generator can keep up.
    """

    architecture: ClassVar[str] = "dcgan"
    lr: float = 2e-4
    latent: int = 100
    width: int = 512
    d_rate: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("d_rate")
        for name in ("latent", "width"):
            whole(getattr(self, name), name, 1)

    def networks(self, image: tuple[int, int, int]) -> dict[str, nn.Module]:
        layers = (image[1] // 4).bit_length() - 1
        if layers < 1 or 4 * 2**layers != image[1]:
            raise ProbeError(f"images are {image[1]}×{image[1]}; give a size of 8, 16, 32, 64, 128, …")
        widths = [max(1, self.width // 2**i) for i in range(layers)]
        generator = DCGANGenerator(self.latent, widths, image[0])
        discriminator = DCGANDiscriminator(widths[::-1], image[0])
        for module in (generator, discriminator):
            module.apply(_start)
        return {"generator": generator, "discriminator": discriminator}

    def optimisers(self, networks: Mapping[str, nn.Module]) -> dict[str, torch.optim.Optimizer]:
        rates = {"generator": self.lr, "discriminator": self.lr * self.d_rate}
        return {
            name: torch.optim.Adam(network.parameters(), rates[name], betas=(0.5, 0.999), fused=True)
            for name, network in networks.items()
        }

    def step(self, step: Step) -> Iterator[Update]:
        networks = step.networks
        fakes = networks["generator"](step.normal(self.latent, 1, 1))
        real, fake = networks["discriminator"](step.images), networks["discriminator"](fakes.detach())
        loss = discriminator_loss(real, fake)
        said = {"d(data)": real.sigmoid().mean(), "d(samples)": fake.sigmoid().mean()}
        yield Update("discriminator", loss, {"discriminator": loss, **said})
        with networks.frozen("discriminator") as judge:
            loss = generator_loss(judge(fakes))
        yield Update("generator", loss, {"generator": loss})

    def samples(self, networks: Networks, step: Step) -> Tensor:
        images: Tensor = networks["generator"](step.normal(self.latent, 1, 1))
        return images

    def files(self, networks: Mapping[str, nn.Module]) -> dict[str, dict[str, Tensor]]:
        generator, discriminator = (networks[name].state_dict() for name in ("generator", "discriminator"))
        return {"model": generator, "discriminator": discriminator}


def _start(module: nn.Module) -> None:
    """Weights from N(0, 0.02), those of norms from N(1, 0.02) (Radford et al. 2015, section 4)."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)


ANY = Trainable("dcgan", "images by a DCGAN", DCGANRecipe)
DCGAN_FACES_SMALL = Trainable(
    cards.DCGAN_FACES_SMALL.name,
    cards.DCGAN_FACES_SMALL.summary,
    DCGANRecipe,
    settings={"latent": 150, "width": 128, "d_rate": 0.5},
    data=FACES,
    images=20_000,
    size=64,
    steps=6_000,
    precision="bf16",
)
DCGAN_CIFAR10 = Trainable(
    cards.DCGAN_CIFAR10.name,
    cards.DCGAN_CIFAR10.summary,
    DCGANRecipe,
    settings={"latent": 150, "width": 64},
    data_wanted=CIFAR,
    size=32,
    steps=10_000,
    precision="bf16",
)
