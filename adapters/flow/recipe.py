"""How rectified flows are trained: Liu et al. 2023, with the times of Esser et al. 2024."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from counterfactual_probe.base.errors import ProbeError, whole
from counterfactual_probe.training import Networks, Recipe, Step, Trainable, Update, copied

from ..averaging import follow, require_decay, settling
from ..vae.recipe import FACES
from .generator import STEPS, Flow, UNet

FLOOR = 0.05  # of the learning rate, which decays to it and not to 0


def velocity_loss(velocity: Tensor, noise: Tensor, images: Tensor) -> Tensor:
    """‖v − (x − z)‖², averaged over pixels and images (Liu et al. 2023, eq. 1)."""
    return (velocity - (images - noise)).square().mean()


@dataclass
class FlowRecipe(Recipe):
    """A rectified flow from noise to images; what is kept is the average of its weights.

    Attributes:
        width: channels at the images' full size; each of ``levels`` after it has twice as many at half the size.
        levels: sizes that have blocks of their own, above the bottleneck.
        down: images are averaged over squares of so many pixels before they are learnt.
        flip: whether each image is mirrored half of the time.
        average: how much of the average of the weights stays in a step.
        steps: Euler steps of the sampler that is written.
    """

    architecture: ClassVar[str] = "flow"
    lr: float = 2e-3
    width: int = 32
    levels: int = 3
    down: int = 1
    flip: bool = False
    average: float = 0.999
    steps: int = STEPS

    def __post_init__(self) -> None:
        super().__post_init__()
        require_decay(self.average)
        for name in ("width", "levels", "down", "steps"):
            whole(getattr(self, name), name, 1)

    def configuration(self, image: tuple[int, int, int]) -> dict[str, Any]:
        return {"image_size": image[1] // self.down, "steps": self.steps}

    def networks(self, image: tuple[int, int, int]) -> dict[str, nn.Module]:
        if image[1] % (self.down * 2**self.levels):
            raise ProbeError(
                f"images of {image[1]}×{image[1]} are to be averaged over {self.down} and then halved {self.levels} "
                f"times; give a size that is a multiple of {self.down * 2**self.levels}"
            )
        network = UNet(tuple(self.width * 2**level for level in range(self.levels)), image[0])
        network.to(memory_format=torch.channels_last)
        return {"velocity": network, "average": copy.deepcopy(network).requires_grad_(False)}

    def optimisers(self, networks: Mapping[str, nn.Module]) -> dict[str, torch.optim.Optimizer]:
        parameters = networks["velocity"].parameters()
        return {"velocity": torch.optim.AdamW(parameters, self.lr, betas=(0.9, 0.99), fused=True)}

    def rate(self, number: int) -> float:
        return FLOOR + (1 - FLOOR) * super().rate(number)

    def step(self, step: Step) -> Iterator[Update]:
        images = F.avg_pool2d(step.images, self.down)
        if self.flip:
            images = torch.where(step.uniform(1, 1, 1) < 0, images, images.flip(3))
        noise = step.normal(*images.shape[1:])
        times = step.normal().sigmoid()  # more often midway, where most is decided
        share = times[:, None, None, None]
        mixed = torch.lerp(noise, images, share).contiguous(memory_format=torch.channels_last)
        loss = velocity_loss(step.networks["velocity"](mixed, times).float(), noise, images)
        yield Update("velocity", loss, {"velocity": loss})
        decay = settling(self.average, step.number)
        follow(step.networks.plain["average"], step.networks.plain["velocity"], decay)

    def samples(self, networks: Networks, step: Step) -> Tensor:
        network: Any = networks.plain["average"]
        colours, height, width = step.images.shape[1:]
        noise = step.normal(colours, height // self.down, width // self.down)
        images: Tensor = Flow(network, self.steps)(noise)
        return images

    def files(self, networks: Mapping[str, nn.Module]) -> dict[str, dict[str, Tensor]]:
        return {"model": networks["average"].state_dict()}

    def begin(self, networks: Mapping[str, nn.Module], files: Mapping[str, Mapping[str, Tensor]]) -> None:
        for network in networks.values():
            copied(network.state_dict(), files, "model")


ANY = Trainable("flow", "images by a rectified flow", FlowRecipe)
# It ends before the learning rate has fallen to its floor, at 28 % of its highest: the loss still fell, slowly, and
# what another 4000 steps would bring is not known.
FLOW_FACES = Trainable(
    "flow-faces",
    "32×32 faces by a rectified flow (a U-Net of 32, 64 and 128 channels in 8 Euler steps)",
    FlowRecipe,
    settings={"down": 2, "flip": True, "warmup": 200, "decay": 12_000},
    data=FACES,
    images=20_000,
    size=64,
    steps=8_096,
    precision="bf16",
)
