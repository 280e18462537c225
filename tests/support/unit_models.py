"""Small random generators of the families that units beyond channels come from, as cases of the twins."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from support.toy_modules import N_CLASSES
from support.toys import CONDITIONAL, PLAIN, SKIP_CROSSES, TOKENS, VECTOR, Toy, identity


class Block(nn.Module):
    """A transformer block by torch's own attention; ``condition`` scales and shifts as in a DiT."""

    def __init__(self, width: int, heads: int, condition: int = 0) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = SelfAttention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.modulation = nn.Linear(condition, 2 * width) if condition else None

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        y = self.norm1(x)
        if self.modulation is not None:
            shift, scale = self.modulation(condition)[:, None].chunk(2, -1)
            y = y * (1 + scale) + shift
        x = x + self.attn(y)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class SelfAttention(nn.Module):
    """Heads side by side before ``proj``, as in timm; ``context`` is attended to instead of the input itself."""

    def __init__(self, width: int, num_heads: int, context: int | None = None) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.to_q = nn.Linear(width, width)
        self.to_kv = nn.Linear(context or width, 2 * width)
        self.mixed, self.proj = nn.Identity(), nn.Linear(width, width)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        def split(values: Tensor) -> Tensor:
            return values.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

        key, value = self.to_kv(x if context is None else context).chunk(2, -1)
        mixed = F.scaled_dot_product_attention(split(self.to_q(x)), split(key), split(value))
        out: Tensor = self.proj(self.mixed(mixed.transpose(1, 2).flatten(2)))
        return out


class ViTDecoder(nn.Module):
    """16 tokens from a latent, two blocks, each token a patch of 2×2."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.position = nn.Linear(5, 16 * 8), nn.Parameter(torch.randn(16, 8))
        self.blocks = nn.ModuleList([Block(8, 2), Block(8, 2)])
        self.patch = nn.Linear(8, 12)

    def forward(self, z: Tensor) -> Tensor:
        x = self.embed(z).unflatten(1, (16, 8)) + self.position
        for block in self.blocks:
            x = block(x)
        return F.pixel_shuffle(self.patch(x).mT.unflatten(2, (4, 4)), 2)


class DiT(nn.Module):
    """One step of a class-conditional diffusion transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.position = nn.Conv2d(2, 8, 2, 2), nn.Parameter(torch.randn(16, 8))
        self.label = nn.Embedding(N_CLASSES, 6)
        self.blocks = nn.ModuleList([Block(8, 4, 6), Block(8, 4, 6)])
        self.final = nn.Linear(8, 12)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        tokens, condition = self.patches(x).flatten(2).mT + self.position, self.label(y)
        for block in self.blocks:
            tokens = block(tokens, condition)
        return F.pixel_shuffle(self.final(tokens).mT.unflatten(2, (4, 4)), 2)


class TextUNet(nn.Module):
    """A U-Net whose middle attends to embedded words, as Stable Diffusion's."""

    def __init__(self) -> None:
        super().__init__()
        self.text, self.position = nn.Embedding(9, 6), nn.Parameter(torch.randn(5, 6))
        self.encode = nn.Linear(6, 6)
        self.first, self.down = nn.Conv2d(2, 6, 3, padding=1), nn.Conv2d(6, 8, 3, 2, 1)
        self.norm, self.attn = nn.GroupNorm(2, 8), SelfAttention(8, 2, context=6)
        self.up, self.last = nn.ConvTranspose2d(8, 6, 4, 2, 1), nn.Conv2d(12, 3, 3, padding=1)

    def forward(self, x: Tensor, words: Tensor) -> Tensor:
        text = self.encode(self.text(words) + self.position)
        skip = F.silu(self.first(x))
        middle = F.silu(self.norm(self.down(skip)))
        tokens = middle.flatten(2).mT
        middle = (tokens + self.attn(tokens, text)).mT.unflatten(2, tuple(middle.shape[2:]))
        image: Tensor = self.last(torch.cat([F.silu(self.up(middle)), skip], 1))
        return image


class Modulated(nn.Module):
    """StyleGAN2's convolution: kernels scaled by the style and normalised, one group for each sample."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight, self.style = nn.Parameter(torch.randn(outputs, inputs, 3, 3)), nn.Linear(6, inputs)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        n, _, height, width = x.shape
        kernels = self.weight * (1 + self.style(w))[:, None, :, None, None]
        kernels = kernels * torch.rsqrt(kernels.square().sum((2, 3, 4), keepdim=True) + 1e-8)
        made = F.conv2d(x.reshape(1, -1, height, width), kernels.flatten(0, 1), padding=1, groups=n)
        return F.leaky_relu(made.view(n, -1, height, width), 0.2)


class StyleGAN2(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mapping = nn.Sequential(nn.Linear(5, 6), nn.LeakyReLU(0.2), nn.Linear(6, 6))
        self.constant = nn.Parameter(torch.randn(1, 6, 4, 4))
        self.conv1, self.conv2, self.rgb = Modulated(6, 6), Modulated(6, 5), nn.Conv2d(5, 3, 1)

    def forward(self, z: Tensor) -> Tensor:
        w = self.mapping(z)
        x = self.conv1(self.constant.expand(len(z), -1, -1, -1), w)
        image: Tensor = self.rgb(self.conv2(F.interpolate(x, scale_factor=2.0), w))
        return image


class Volume(nn.Module):
    """A decoder of volumes, 8×8×8 voxels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.ConvTranspose3d(5, 6, 2), nn.ConvTranspose3d(6, 5, 4, 2, 1)
        self.norm, self.last = nn.BatchNorm3d(6), nn.ConvTranspose3d(5, 1, 4, 2, 1)
        self.act = nn.ReLU()

    def forward(self, z: Tensor) -> Tensor:
        x = self.act(self.norm(self.first(z[:, :, None, None, None])))
        volume: Tensor = torch.tanh(self.last(F.relu(self.second(x))))
        return volume


class Vocoder(nn.Module):
    """Frames to a waveform of 32 samples."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.up1 = nn.Conv1d(4, 6, 3, padding=1), nn.ConvTranspose1d(6, 5, 4, 2, 1)
        self.up2, self.act = nn.ConvTranspose1d(5, 1, 4, 2, 1), nn.LeakyReLU(0.1)

    def forward(self, mel: Tensor) -> Tensor:
        sound: Tensor = torch.tanh(self.up2(F.leaky_relu(self.up1(self.act(self.first(mel))), 0.1)))
        return sound


def conditioned(**latents: Any) -> Any:
    """A sampler of a dict of latents: normal of a size, or numbers below one."""

    def draw(size: Any, n: int, rng: torch.Generator) -> Tensor:
        if isinstance(size, tuple):
            return torch.randn(n, *size, generator=rng, dtype=torch.float64)
        return torch.randint(size[0], (n, *size[1:]), generator=rng)

    return lambda n, rng: {name: draw(size, n, rng) for name, size in latents.items()}


def normal(*size: int) -> Any:
    return lambda n, rng: torch.randn(n, *size, generator=rng, dtype=torch.float64)


VIT = Toy("ViT decoder", ViTDecoder, "blocks.0.attn.mixed", "blocks.1.mlp", full_cut=False)
DIT = Toy("DiT", DiT, "blocks.0", "blocks.1", sampler=conditioned(x=(2, 8, 8), y=[N_CLASSES]), conditions=("y",))
TEXT = Toy(
    "text-conditioned U-Net", TextUNet, "encode", "down", full_cut=False, sampler=conditioned(x=(2, 8, 8), words=[9, 5])
)
STYLE = Toy(
    "StyleGAN2", StyleGAN2, "conv1", "conv2", full_cut=False, wrap={"axes": {"conv1": "n c h w", "conv2": "n c h w"}}
)
VOLUME = Toy("3-D decoder", Volume, "act", "second", wrap={"image": identity})
VOCODER = Toy("vocoder", Vocoder, "act", "up1", sampler=normal(4, 8), wrap={"image": identity})
PICTURES = [PLAIN, CONDITIONAL, SKIP_CROSSES, VECTOR, TOKENS, VIT, DIT, TEXT, STYLE]
EVERY = [*PICTURES, VOLUME, VOCODER]
# Layers of tokens, whose channels are in their last dimension.
OF_TOKENS = {TOKENS.name, VIT.name, DIT.name, TEXT.name}
