"""Small generators for the explorer, one for each kind of operation that its pages compute."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import counterfactual_probe as cp


def normal(*size: int) -> Callable[[int, torch.Generator], Tensor]:
    return lambda n, rng: torch.randn(n, *size, generator=rng)


class Faces(nn.Module):
    """Latents 6 → 16×16: two transposed convolutions, norms of fixed statistics, and one more to colours."""

    def __init__(self, colours: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(nn.ConvTranspose2d(6, 12, 4), nn.BatchNorm2d(12), nn.ReLU())
        self.second = nn.Sequential(nn.ConvTranspose2d(12, 10, 4, 2, 1), nn.BatchNorm2d(10), nn.ReLU())
        self.image = nn.Sequential(nn.ConvTranspose2d(10, colours, 4, 2, 1), nn.Tanh())
        for block, scale in ((self.first, 0.4), (self.second, 0.2), (self.image, 0.3)):
            nn.init.normal_(block[0].weight, std=scale)  # so that no channel is dead, and images are not grey
        for norm in (self.first[1], self.second[1]):
            norm.running_mean.normal_(0, 0.2)
            norm.running_var.uniform_(0.5, 2)

    def forward(self, z: Tensor) -> Tensor:
        return self.image(self.second(self.first(z[:, :, None, None])))  # type: ignore[no-any-return]


# A name that is text wherever it stands.
HOSTILE = "</script><img src=x onerror=alert(1)><!--"


def faces(colours: int = 3, name: str = "toy-faces") -> cp.GeneratorAdapter:
    return cp.wrap(Faces(colours).eval(), normal(6), layers=["first", "second"], name=name)


def noisy() -> cp.GeneratorAdapter:
    """Faces that no page computes, because a forward draws noise (which it does not use)."""

    class Noisy(Faces):
        def forward(self, z: Tensor) -> Tensor:
            return super().forward(z) + 0 * torch.randn(len(z), 3, 16, 16)

    return cp.wrap(Noisy().eval(), normal(6), layers=["second"], name="noisy")


class Tail(nn.Module):
    """A convolution to 8 channels of 8×8, and a function of them that gives an image."""

    def __init__(self, tail: nn.Module | Callable[[Tensor], Tensor], channels: int) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.start = nn.ConvTranspose2d(5, 8, 8)
        self.tail = tail
        self.colours = nn.Conv2d(channels, 3, 1)

    def forward(self, z: Tensor) -> Tensor:
        return torch.tanh(self.colours(self.tail(self.start(z[:, :, None, None]))))


def tailed(tail: nn.Module | Callable[[Tensor], Tensor], channels: int = 8) -> cp.GeneratorAdapter:
    return cp.wrap(Tail(tail, channels).eval(), normal(5), layers=["start"], name="tailed")


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.conv = nn.GroupNorm(2, 8), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.5 * self.conv(F.silu(self.norm(x)))


class Flat(nn.Module):
    """Vectors in between, with a norm over the features."""

    def __init__(self) -> None:
        super().__init__()
        self.squeeze, self.norm, self.back = nn.Linear(512, 20), nn.LayerNorm(20), nn.Linear(20, 512)

    def forward(self, x: Tensor) -> Tensor:
        return self.back(F.gelu(self.norm(self.squeeze(x.flatten(1))))).view(-1, 8, 8, 8)


def graded() -> nn.PReLU:
    """A slope of its own for each channel."""
    made = nn.PReLU(8)
    made.weight.data = torch.linspace(-0.5, 0.9, 8)
    return made


def pixel_norm(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-6)


def shuffled(x: Tensor) -> Tensor:
    one, two = x.chunk(2, 1)
    return torch.cat([two.transpose(2, 3), F.pad(one[:, :, 1:, :], (0, 0, 0, 1)), one.clamp(-0.3, 0.4)], 1)


class Attention(nn.Module):
    """Each place of 4×4 attends to all, in two heads, by torch's own function or step by step."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.fused, self.three = fused, nn.Linear(8, 24)

    def forward(self, x: Tensor) -> Tensor:
        places = F.avg_pool2d(x, 2).flatten(2).transpose(1, 2)
        query, key, value = (one.view(-1, 16, 2, 4).transpose(1, 2) for one in (4 * self.three(places)).chunk(3, 2))
        if self.fused:
            made = F.scaled_dot_product_attention(query, key, value)
        else:
            made = torch.softmax(query @ key.transpose(2, 3) / 2, -1) @ value
        return made.transpose(1, 2).reshape(-1, 16, 8).transpose(1, 2).reshape(-1, 8, 4, 4)


def padded(mode: str) -> Callable[[Tensor], Tensor]:
    return lambda x: F.pad(x, (1, 3, 2, 0), mode=mode)


# name -> what comes between 8 channels of 8×8 and the colours, and how many channels it gives
TAILS: dict[str, tuple[nn.Module | Callable[[Tensor], Tensor], int]] = {
    "convolution": (nn.Conv2d(8, 6, 3, padding=1), 6),
    "strided and dilated": (nn.Conv2d(8, 6, 3, stride=2, padding=2, dilation=2), 6),
    "asymmetric": (nn.Conv2d(8, 6, (1, 3), padding=(0, 1)), 6),
    "grouped": (nn.Conv2d(8, 12, 3, padding=1, groups=4), 12),
    "transposed": (nn.ConvTranspose2d(8, 20, 4, 2, 1), 20),
    "transposed, odd": (nn.ConvTranspose2d(8, 7, 3, 2, 1, output_padding=1), 7),
    "transposed, grouped": (nn.ConvTranspose2d(8, 6, 3, 2, groups=2), 6),
    "polyphase": (nn.ConvTranspose2d(8, 3, 4, 2, 1), 3),
    "upsampled, then convolved": (nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(8, 6, 3, padding=1)), 6),
    "nearest": (nn.Upsample(scale_factor=3), 8),
    "bilinear": (nn.Upsample(scale_factor=2, mode="bilinear"), 8),
    "bilinear, corners": (nn.UpsamplingBilinear2d(scale_factor=2), 8),
    "pixel shuffle": (nn.PixelShuffle(2), 2),
    "average pool": (nn.AvgPool2d(2), 8),
    "group norm": (Residual(), 8),
    "instance norm": (nn.InstanceNorm2d(8, affine=True), 8),
    "batch norm": (nn.Sequential(nn.Identity(), nn.BatchNorm2d(8)), 8),
    "linear and layer norm": (Flat(), 8),
    "pixel norm": (pixel_norm, 8),
    "parts and joins": (shuffled, 12),
    "one of many": (lambda x: x * x[:, 3].unsqueeze(1) + x.sum((1, 3), keepdim=True) / 30, 8),
    "attention": (Attention(True), 8),
    "attention, step by step": (Attention(False), 8),
    "softmax of channels": (lambda x: 5 * torch.softmax(3 * x, 1), 8),
    "reflected": (padded("reflect"), 8),
    "reflected, as a layer": (nn.Sequential(nn.ReflectionPad2d((2, 1, 0, 3)), nn.Conv2d(8, 6, 3)), 6),
    "replicated": (padded("replicate"), 8),
    "replicated, as a layer": (nn.ReplicationPad2d(2), 8),
    "padded in a circle": (padded("circular"), 8),
    "convolved in a circle": (nn.Conv2d(8, 6, 3, padding=1, padding_mode="circular"), 6),
    "prelu": (graded(), 8),
    "prelu, one slope": (nn.PReLU(), 8),
    "scale of channels": (lambda x: x / (1 + x.abs().mean((2, 3), keepdim=True)), 8),
    **{
        type(one).__name__: (one, 8)
        for one in (
            nn.ReLU(), nn.LeakyReLU(0.2), nn.ELU(0.7), nn.SELU(), nn.GELU(), nn.SiLU(), nn.Mish(), nn.Sigmoid(),
            nn.ReLU6(), nn.Tanh(), nn.Softplus(), nn.Hardtanh(), nn.Hardsigmoid(), nn.Hardswish(),
        )
    },
}  # fmt: skip
