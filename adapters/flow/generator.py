"""Rectified flows (Liu et al. 2023): a small U-Net that says where images go, and a sampler that takes its steps."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any

import torch
from msgspec import Meta
from torch import Tensor, nn
from torch.nn import functional as F

from counterfactual_probe.base.errors import ProbeError, whole
from counterfactual_probe.base.formats.types import Side
from counterfactual_probe.generator.adapter import GeneratorAdapter
from counterfactual_probe.generator.latents import standard_normal
from counterfactual_probe.generator.state.settings import fresh_settings
from counterfactual_probe.generator.wrap import wrap
from counterfactual_probe.registry.folders import Architecture, Configuration
from counterfactual_probe.registry.weights import built, first_names, require_image, tensors_only

STEPS = 8  # of the sampler, where config.json says nothing
_GROUPS = 8  # channels of a group norm's group
# Of the time's sines, in radians from the start of the flow to its end.
_RATES = tuple(1000.0 ** (i / 15) for i in range(16))


class Block(nn.Module):
    """Two 3×3 convolutions, each after group norm and SiLU, the time added in between, and a shortcut around both."""

    def __init__(self, before: int, after: int, time: int) -> None:
        super().__init__()
        self.norm_0, self.conv_0 = _norm(before), nn.Conv2d(before, after, 3, padding=1)
        self.time = nn.Linear(time, after)
        self.norm_1, self.conv_1 = _norm(after), nn.Conv2d(after, after, 3, padding=1)
        self.shortcut = nn.Conv2d(before, after, 1) if before != after else nn.Identity()
        nn.init.zeros_(self.conv_1.weight)  # at first a block is its shortcut
        nn.init.zeros_(self.conv_1.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        inner = self.conv_0(F.silu(self.norm_0(x))) + self.time(time)[:, :, None, None]
        out: Tensor = self.shortcut(x) + self.conv_1(F.silu(self.norm_1(inner)))
        return out


class UNet(nn.Module):
    """Velocities of images (n, C, H, W) at times (n,) from 0 to 1.

    ``down`` has a block for each width, after which the size is halved; ``middle`` is the bottleneck; ``up`` mirrors
    ``down`` and gets its outputs beside its own input, the widest first. The time, as sines, goes into every block.
    """

    def __init__(self, widths: tuple[int, ...] = (32, 64, 128), colours: int = 3, *, time: int = 128) -> None:
        super().__init__()
        self.clock = nn.Sequential(nn.Linear(2 * len(_RATES), time), nn.SiLU(), nn.Linear(time, time), nn.SiLU())
        self.start = nn.Conv2d(colours, widths[0], 3, padding=1)
        before = (widths[0], *widths)
        self.down = nn.ModuleList(Block(a, b, time) for a, b in zip(before, widths, strict=False))
        self.middle = Block(widths[-1], widths[-1], time)
        narrower = (widths[0], *widths[:-1])
        self.up = nn.ModuleList(
            Block(2 * b, a, time) for a, b in zip(reversed(narrower), reversed(widths), strict=True)
        )
        self.end = nn.Sequential(_norm(widths[0]), nn.SiLU(), nn.Conv2d(widths[0], colours, 3, padding=1))

    def forward(self, x: Tensor, times: Tensor) -> Tensor:
        time = self.clock(sines(times))
        x = self.start(x)
        kept = []
        for block in self.down:
            x = block(x, time)
            kept.append(x)
            x = F.avg_pool2d(x, 2)
        x = self.middle(x, time)
        for block in self.up:
            x = torch.cat([F.interpolate(x, scale_factor=2.0, mode="nearest"), kept.pop()], 1)
            x = block(x, time)
        velocity: Tensor = self.end(x)
        return velocity


class Flow(nn.Module):
    """Noise (n, C, H, W) to images, in Euler steps of equal length along the velocities (Liu et al. 2023, section 2.2).

    ``image`` is the last part, which runs once: it cuts the image to −1…1. All others run once a step.
    """

    def __init__(self, velocity: UNet, steps: int = STEPS) -> None:
        super().__init__()
        self.velocity, self.steps = velocity, steps
        self.image = nn.Hardtanh()

    def forward(self, z: Tensor) -> Tensor:
        x = z
        for step in range(self.steps):
            x = x + self.velocity(x, x.new_full((len(x),), step / self.steps)) / self.steps
        images: Tensor = self.image(x)
        return images


def sines(times: Tensor) -> Tensor:
    """Sines and cosines (n, 32) of times in 0…1, of periods from long to short."""
    angles = times[:, None] * times.new_tensor(_RATES)
    return torch.cat([angles.sin(), angles.cos()], 1)


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(max(1, channels // _GROUPS), channels)


@fresh_settings()
def flow(
    state_dict: Mapping[str, Any],
    *,
    image_size: int,
    steps: int = STEPS,
    device: torch.device | str | None = None,
    name: str = "flow",
) -> GeneratorAdapter:
    """A generator from the state dict of a :class:`UNet`: its widths are read off, the image's size cannot be.

    >>> from counterfactual_probe.adapters.flow import UNet, flow
    >>> gen = flow(UNet((8, 16), 1).state_dict(), image_size=8, steps=2)
    >>> gen.image_size, list(gen.layers)[:3]
    ((1, 8, 8), ['velocity.down.0#1', 'velocity.down.0#2', 'velocity.down.1#1'])

    ``layers`` lists each call of each block, the first being #1; latents are the noise, standard normal.

    Raises:
        ProbeError: the tensors are not those of such a U-Net; a size that it cannot halve often enough.
    """
    state = tensors_only(state_dict)
    widths, colours, time = _sizes(state)
    whole(steps, "steps", 1)
    if whole(image_size, "image_size", 1) % 2 ** len(widths):
        raise ProbeError(
            f"image_size is {image_size} and the U-Net halves it {len(widths)} times; give a multiple of "
            f"{2 ** len(widths)}"
        )
    require_image(image_size, widths[0], "a flow")
    network = built(lambda: UNet(widths, colours, time=time), state, "the U-Net of a flow")
    blocks = [f"velocity.{key}" for key, part in network.named_modules() if isinstance(part, Block)]
    return wrap(
        Flow(network, steps).eval(),
        partial(standard_normal, size=(colours, image_size, image_size)),
        layers=[f"{block}#{call}" for block in blocks for call in range(1, steps + 1)],
        device=device,
        name=name,
    )


def _sizes(state: Mapping[str, Tensor]) -> tuple[tuple[int, ...], int, int]:
    """Widths, colours and the length of the time's vector."""
    widths: list[int] = []
    while (kernel := state.get(f"down.{len(widths)}.conv_0.weight")) is not None and kernel.dim() == 4:
        widths.append(kernel.shape[0])
    first, clock = state.get("start.weight"), state.get("clock.0.weight")
    if not widths or first is None or clock is None or first.dim() != 4:
        raise ProbeError(
            f"the state dict holds no start.weight, clock.0.weight and down.0.conv_0.weight (its first keys: "
            f"{first_names(state)}); give that of a flow's U-Net"
        )
    return tuple(widths), first.shape[1], clock.shape[0]


def _build(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor], device: torch.device | str | None
) -> GeneratorAdapter:
    if "image_size" not in config:
        raise ProbeError("the config.json of a flow names no image_size; add it, such as 32")
    return flow(
        tensors,
        image_size=config["image_size"],
        steps=config.get("steps", STEPS),
        device=device,
        name=str(config.get("name", "flow")),
    )


class FlowConfiguration(Configuration):
    """Entries of config.json: the side of the images, and the steps of the sampler."""

    image_size: Side | None = None
    steps: Annotated[int, Meta(ge=1, le=10_000)] = STEPS


ARCHITECTURE = Architecture("flow", _build, configuration=FlowConfiguration)
