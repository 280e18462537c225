"""How boundary-equilibrium GANs are trained: Berthelot et al. 2017."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from counterfactual_probe.base.errors import ProbeError, whole
from counterfactual_probe.training import Networks, Recipe, Step, Trainable, Update

from ..cards import trained as cards
from ..vae.recipe import FACES
from .generator import BEGANDiscriminator, BEGANGenerator


def autoencoder_loss(images: Tensor, reconstructions: Tensor) -> Tensor:
    """L(v) = |v − D(v)| (eq. 1 with η = 1), averaged over pixels and images."""
    return (images - reconstructions).abs().mean()


def next_k(k: Tensor, real: Tensor, fake: Tensor, *, gamma: float, rate: float) -> Tensor:
    """k + λ (γ L(x) − L(G(z))), within 0…1 (section 3.4)."""
    return (k + rate * (gamma * real - fake)).clamp(0, 1)


def convergence(real: Tensor, fake: Tensor, *, gamma: float) -> Tensor:
    """M = L(x) + |γ L(x) − L(G(z))| (section 3.4.1): the reconstruction error plus the distance from equilibrium."""
    return real + (gamma * real - fake).abs()


@dataclass
class BEGANRecipe(Recipe):
    """A BEGAN; its discriminator, an autoencoder, is saved beside it.

    Attributes:
        latent: dimensions of the latent and of the discriminator's code.
        width: channels of every layer of the generator.
        gamma: diversity, the ratio of L(G(z)) to L(x) at equilibrium.
        k_rate: λ, the learning rate of k.
        halve_every: the learning rate is halved each time this many steps have passed.
    """

    architecture: ClassVar[str] = "began"
    batch: int = 16
    lr: float = 1e-4
    latent: int = 64
    width: int = 64
    gamma: float = 0.5
    k_rate: float = 1e-3
    halve_every: int = 100_000

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("gamma", "k_rate")
        for name in ("latent", "width", "halve_every"):
            whole(getattr(self, name), name, 1)

    def networks(self, image: tuple[int, int, int]) -> dict[str, nn.Module]:
        start = 8 if image[1] >= 32 else 4
        if image[1] < 2 * start:
            raise ProbeError(f"images are {image[1]}×{image[1]}; give a size of 8, 16, 32, 64, 128, …")
        sizes = (self.latent, self.width, image[0])
        return {
            "generator": BEGANGenerator(*sizes, image_size=image[1], start=start),
            "discriminator": BEGANDiscriminator(*sizes, image_size=image[1], start=start),
        }

    def optimisers(self, networks: Mapping[str, nn.Module]) -> dict[str, torch.optim.Optimizer]:
        return {name: torch.optim.Adam(network.parameters(), self.lr, fused=True) for name, network in networks.items()}

    def rate(self, number: int) -> float:
        halvings = number // self.halve_every
        return super().rate(number) * float(0.5**halvings)

    def step(self, step: Step) -> Iterator[Update]:
        generator, discriminator = step.networks["generator"], step.networks["discriminator"]
        k = self.state.setdefault("k", torch.zeros((), device=step.images.device))
        with torch.no_grad():
            fakes = generator(step.uniform(self.latent))
        real = autoencoder_loss(step.images, discriminator(step.images))
        loss = real - k * autoencoder_loss(fakes, discriminator(fakes))
        yield Update("discriminator", loss, {"discriminator": loss, "data": real})
        fakes = generator(step.uniform(self.latent))
        with step.networks.frozen("discriminator") as judge:
            fake = autoencoder_loss(fakes, judge(fakes))
        shown = {"generator": fake, "k": k, "convergence": convergence(real, fake, gamma=self.gamma)}
        yield Update("generator", fake, shown)
        means = step.mean(torch.stack([real.detach(), fake.detach()]))
        self.state["k"] = next_k(k, means[0], means[1], gamma=self.gamma, rate=self.k_rate)

    def samples(self, networks: Networks, step: Step) -> Tensor:
        images: Tensor = networks["generator"](step.uniform(self.latent))
        return images

    def reconstructions(self, networks: Networks, images: Tensor) -> Tensor:
        made: Tensor = networks["discriminator"](images)
        return made

    def files(self, networks: Mapping[str, nn.Module]) -> dict[str, dict[str, Tensor]]:
        generator, discriminator = (networks[name].state_dict() for name in ("generator", "discriminator"))
        return {"model": generator, "discriminator": discriminator}


ANY = Trainable("began", "images by a BEGAN", BEGANRecipe)
BEGAN_FACES = Trainable(
    cards.BEGAN_FACES.name,
    cards.BEGAN_FACES.summary,
    BEGANRecipe,
    # With a tenth of the paper's steps, k has to reach its equilibrium sooner.
    settings={"width": 32, "lr": 2e-4, "halve_every": 5_000, "batch": 8, "k_rate": 5e-3},
    data=FACES,
    images=20_000,
    size=64,
    steps=8_500,
    precision="bf16",
)
