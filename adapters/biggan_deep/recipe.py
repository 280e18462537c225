"""How a BigGAN-deep is trained: Brock et al. 2019, at a small size, with differentiable augmentation."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from counterfactual_probe.base.errors import ProbeError, whole
from counterfactual_probe.data import Images
from counterfactual_probe.training import Networks, Recipe, Step, Trainable, Update, copied

from ..augmentation import NUMBERS, augmented
from ..averaging import follow, require_decay, settling
from ..vae.recipe import CIFAR
from .discriminator import BigGANDiscriminator, start
from .training import TrainedBigGAN, settled, stored

STATISTICS = 256  # samples from which the batch norms' statistics of a truncation are taken


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """max(0, 1 − D(x)) + max(0, 1 + D(G(z))), the hinge loss (Brock et al. 2019, section 3)."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


@dataclass
class BigGANRecipe(Recipe):
    """A BigGAN-deep of square images in classes, and a discriminator that is told the class.

    Attributes:
        latent: dimensions of z and of a class's vector.
        width: channels of the generator's last layer; the first has sixteen times as many.
        d_width: channels of the discriminator's first block.
        d_rate: the discriminator's learning rate as a multiple of ``lr``.
        average: how much of the average of the generator's weights, which is what is kept, stays in a step.
        classes: names of the classes, in the order of their numbers; by default those of the data.
    """

    architecture: ClassVar[str] = "biggan-deep"
    lr: float = 2e-4
    latent: int = 40
    width: int = 32
    d_width: int = 48
    d_rate: float = 2.0
    average: float = 0.999
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        require_decay(self.average)
        self.require_positive("d_rate")
        for name in ("latent", "d_width"):
            whole(getattr(self, name), name, 1)
        whole(self.width, "width", 3)  # its last layer holds the three colours

    def suited(self, images: Images) -> BigGANRecipe:
        if images.labels is None:
            raise ProbeError(
                f"{images.source} has no classes and a BigGAN needs them; give a folder or zip with one folder a class"
            )
        return replace(self, classes=images.classes)

    def configuration(self, image: tuple[int, int, int]) -> dict[str, Any]:
        layers = [[True, 16, 8], [False, 8, 8], [True, 8, 4], [False, 4, 4], [True, 4, 2], [False, 2, 1]]
        latent = {"z_dim": self.latent, "class_embed_dim": self.latent}
        sizes = {"output_dim": image[1], "channel_width": self.width, "num_classes": len(self.classes)}
        fixed = {"layers": layers, "attention_layer_position": 3, "n_stats": 51, "eps": 1e-4}
        return {**latent, **sizes, **fixed, "classes": list(self.classes)}

    def networks(self, image: tuple[int, int, int]) -> dict[str, nn.Module]:
        if image != (3, 32, 32):
            raise ProbeError(f"images of {'×'.join(map(str, image))} are asked; give colour images of 32×32, size=32")
        generator = TrainedBigGAN(self.configuration(image))
        discriminator = BigGANDiscriminator(self.d_width, len(self.classes))
        start(discriminator)
        discriminator.to(memory_format=torch.channels_last)
        average = copy.deepcopy(generator).requires_grad_(False)
        return {"generator": generator, "discriminator": discriminator, "average": average}

    def optimisers(self, networks: Mapping[str, nn.Module]) -> dict[str, torch.optim.Optimizer]:
        rates = {"generator": self.lr, "discriminator": self.lr * self.d_rate}
        return {
            name: torch.optim.Adam(networks[name].parameters(), rate, betas=(0.0, 0.999), eps=1e-6, fused=True)
            for name, rate in rates.items()
        }

    def step(self, step: Step) -> Iterator[Update]:
        networks, labels = step.networks, step.labels
        images = torch.where(step.uniform(1, 1, 1) < 0, step.images, step.images.flip(3))
        images = images.contiguous(memory_format=torch.channels_last)
        fakes = networks["generator"](step.normal(self.latent), labels)
        shown = torch.cat([images, fakes.detach().float()])
        numbers = torch.cat([step.uniform(NUMBERS), step.uniform(NUMBERS)])
        real, fake = networks["discriminator"](augmented(shown, numbers), torch.cat([labels, labels])).chunk(2)
        loss = discriminator_loss(real, fake)
        yield Update("discriminator", loss, {"discriminator": loss, "d(data)": real.mean(), "d(samples)": fake.mean()})
        with networks.frozen("discriminator") as judge:
            loss = -judge(augmented(fakes.float(), step.uniform(NUMBERS)), labels).mean()
        yield Update("generator", loss, {"generator": loss})
        follow(networks.plain["average"], networks.plain["generator"], settling(self.average, step.number))

    def samples(self, networks: Networks, step: Step) -> Tensor:
        z = step.normal(self.latent)
        labels = torch.arange(len(z), device=z.device) * len(self.classes) // len(z)
        average: Any = networks.plain["average"]
        images: Tensor = settled(average)(z, labels)
        return images

    def files(self, networks: Mapping[str, nn.Module]) -> dict[str, dict[str, Tensor]]:
        average: Any = networks["average"]
        return {"model": stored(average, STATISTICS), "discriminator": networks["discriminator"].state_dict()}

    def begin(self, networks: Mapping[str, nn.Module], files: Mapping[str, Mapping[str, Tensor]]) -> None:
        for name in ("generator", "average"):
            network: Any = networks[name]
            copied(network.model.state_dict(), files, "model")
        copied(networks["discriminator"].state_dict(), files, "discriminator")


ANY = Trainable("biggan", "images in classes by a BigGAN-deep, 32×32", BigGANRecipe, data_wanted=CIFAR, size=32)
BIGGAN_CIFAR10 = Trainable(
    "biggan-cifar10",
    "32×32 natural images of ten classes by a BigGAN-deep (latent 40, class, truncation)",
    BigGANRecipe,
    data_wanted=CIFAR,
    size=32,
    steps=30_000,
    precision="bf16",
)
