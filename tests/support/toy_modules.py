"""The modules behind the toys: one small generator for every thing that people's generators do."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Sampler = Callable[..., Any]
N_CLASSES = 4


def vectors(size: int, dtype: torch.dtype = torch.float64) -> Sampler:
    return lambda n, rng: torch.randn(n, size, generator=rng, dtype=torch.float64).to(dtype)


def labelled(n: int, rng: torch.Generator) -> dict[str, Tensor]:
    z = torch.randn(n, 5, generator=rng, dtype=torch.float64)
    return {"z": z, "y": torch.randint(N_CLASSES, (n,), generator=rng)}


def twofold(n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    draw = [torch.randn(n, size, generator=rng, dtype=torch.float64) for size in (5, 3)]
    return draw[0], draw[1]


class Deconv(nn.Module):
    """A DCGAN in small: 4×4, 8×8, 16×16, with batch norm and in-place ReLU."""

    def __init__(self, colours: int = 3, dropout: float = 0.0, last: nn.Module | None = None) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.ConvTranspose2d(5, 6, 4),
            nn.BatchNorm2d(6),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.ConvTranspose2d(6, 5, 4, 2, 1),
            nn.BatchNorm2d(5),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(5, colours, 4, 2, 1),
            last or nn.Tanh(),
        )

    def forward(self, z: Tensor) -> Tensor:
        image: Tensor = self.main(z[:, :, None, None])
        return image


class InPlace(nn.Module):
    """The outputs of ``first`` and ``second`` are overwritten right after they are computed."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.ConvTranspose2d(5, 6, 4), nn.ConvTranspose2d(6, 4, 4, 2, 1)
        self.last = nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = F.leaky_relu_(self.first(z[:, :, None, None]), 0.2) * 1.5
        image: Tensor = self.last(self.second(x).tanh_())
        return image


class ConditionalNorm(nn.Module):
    """Batch norm whose scale and shift come from the class."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.scale, self.shift = nn.Embedding(N_CLASSES, channels), nn.Embedding(N_CLASSES, channels)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        scaled: Tensor = self.norm(x) * (1 + self.scale(y)[:, :, None, None])
        return scaled + self.shift(y)[:, :, None, None]


class Conditional(nn.Module):
    """Class-conditional: the class enters above every layer that is probed."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(N_CLASSES, 5)
        self.first, self.second = nn.ConvTranspose2d(5, 6, 4), nn.ConvTranspose2d(6, 4, 4, 2, 1)
        self.norm1, self.norm2 = ConditionalNorm(6), ConditionalNorm(4)
        self.last = nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        x = self.first((z + self.embed(y))[:, :, None, None])
        x = self.second(F.relu(self.norm1(x, y)))
        image: Tensor = torch.tanh(self.last(F.relu(self.norm2(x, y))))
        return image


class SkipLatent(nn.Module):
    """Two latents; the second enters again above the probed layer, as BigGAN's skip-z does."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.ConvTranspose2d(5, 6, 4), nn.ConvTranspose2d(6, 4, 4, 2, 1)
        self.style, self.last = nn.Linear(3, 4), nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, z: Tensor, w: Tensor) -> Tensor:
        x = self.second(F.relu(self.first(z[:, :, None, None])))
        image: Tensor = self.last(F.relu(x * self.style(w)[:, :, None, None]))
        return image


class Outputs(Deconv):
    """The same images, handed over in other forms."""

    def __init__(self, form: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.form = form

    def forward(self, z: Tensor) -> Any:
        return self.form(super().forward(z))


class UNet(nn.Module):
    """A skip connection crosses ``middle``: no single layer between the two ends is a full cut."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle = nn.ConvTranspose2d(5, 6, 4), nn.Conv2d(6, 6, 3, padding=1)
        self.up, self.last = nn.ConvTranspose2d(12, 4, 4, 2, 1), nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        skip = F.relu(self.first(z[:, :, None, None]))
        x = self.up(torch.cat([self.middle(skip), skip], 1))
        image: Tensor = self.last(F.relu(x))
        return image


class Shared(nn.Module):
    """One ReLU runs after every convolution: its calls are relu#1, relu#2 and relu#3."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=True)
        self.first, self.second = nn.ConvTranspose2d(5, 6, 4), nn.ConvTranspose2d(6, 4, 4, 2, 1)
        self.third, self.last = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.relu(self.first(z[:, :, None, None]))
        x = self.relu(self.third(self.relu(self.second(x))))
        image: Tensor = self.last(x)
        return image


class Attention(nn.Module):
    """Self-attention with a residual; returns (tokens, weights), as attention layers often do."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        weights = torch.softmax(self.query(x) @ self.key(x).mT / x.shape[-1] ** 0.5, -1)
        return x + weights @ self.value(x), weights


class Tokens(nn.Module):
    """16 tokens of width 6, two transformer blocks, each token decoded to a 2×2 patch."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.position = nn.Linear(5, 16 * 6), nn.Parameter(torch.randn(16, 6))
        self.attend1, self.attend2 = Attention(6), Attention(6)
        self.mlp, self.patch = nn.Linear(6, 6), nn.Linear(6, 3 * 4)

    def forward(self, z: Tensor) -> Tensor:
        x = self.first(z).unflatten(1, (16, 6)) + self.position
        x = torch.tanh(self.mlp(self.attend1(x)[0]))
        patches = self.patch(self.attend2(x)[0])
        return F.pixel_shuffle(patches.mT.unflatten(2, (4, 4)), 2)


class Fused(nn.Module):
    """torch's own transformer layers, which run fused and call no submodule unless one has a hook."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 16 * 6)
        layer = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)
        self.encoder, self.patch = nn.TransformerEncoder(layer, 2), nn.Linear(6, 3 * 4)

    def forward(self, z: Tensor) -> Tensor:
        x = self.encoder(self.first(z).unflatten(1, (16, 6)))
        return F.pixel_shuffle(self.patch(x).mT.unflatten(2, (4, 4)), 2)


class OverWidth(nn.Module):
    """A linear layer over the width of square maps with as many channels: not over the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.act = nn.ConvTranspose2d(5, 8, 8), nn.Tanh()
        self.width, self.image = nn.Linear(8, 8), nn.Conv2d(8, 3, 1)

    def forward(self, z: Tensor) -> Tensor:
        image: Tensor = self.image(self.width(self.act(self.up(z[:, :, None, None]))))
        return image


class Pair(NamedTuple):
    activation: Tensor
    extra: Tensor


class NamedOutput(nn.Module):
    """Convolution that returns a named tuple, its activation first."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.ConvTranspose2d(6, 4, 4, 2, 1)

    def forward(self, x: Tensor) -> Pair:
        y = self.kernel(x)
        return Pair(y, y.mean())


class TupleLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.pair, self.last = (
            nn.ConvTranspose2d(5, 6, 4),
            NamedOutput(),
            nn.Conv2d(4, 3, 3, padding=1),
        )

    def forward(self, z: Tensor) -> Tensor:
        image: Tensor = self.last(F.relu(self.pair(F.relu(self.first(z[:, :, None, None]))).activation))
        return image


class Mapping(nn.Module):
    """A mapping network first: its layers are vectors, N×C, without positions."""

    def __init__(self) -> None:
        super().__init__()
        self.mapping = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 6), nn.ReLU())
        self.up, self.last = nn.ConvTranspose2d(6, 4, 4), nn.ConvTranspose2d(4, 3, 4, 2, 1)

    def forward(self, z: Tensor) -> Tensor:
        image: Tensor = self.last(F.relu(self.up(self.mapping(z)[:, :, None, None])))
        return image


class Drawer(nn.Module):
    """Whatever ``finish`` makes of its one layer's output and the latent."""

    def __init__(self, finish: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.layer, self.finish = nn.ConvTranspose2d(5, 3, 4), finish

    def forward(self, z: Tensor) -> Any:
        return self.finish(self.layer(z[:, :, None, None]), z)


class Remembers(nn.Module):
    """Leaves something on itself, as caches and attention maps are often left."""

    def __init__(self) -> None:
        super().__init__()
        self.memory: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.memory = x * 2
        return F.relu(x)


class HiddenPath(nn.Module):
    """The end reads what ``second`` left on itself: a path that no layer's output shows."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.ConvTranspose2d(5, 6, 4), Remembers()
        self.up, self.last = nn.ConvTranspose2d(6, 4, 4, 2, 1), nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = F.relu(self.up(self.second(self.first(z[:, :, None, None]))))
        assert self.second.memory is not None
        image: Tensor = self.last(x) + self.second.memory.mean((1, 2, 3))[:, None, None, None]
        return image


class Noisy(Deconv):
    """Draws noise in every forward, as StyleGAN does, from torch's global generator."""

    def forward(self, z: Tensor) -> Tensor:
        x = self.main[:4](z[:, :, None, None])
        x = self.main[4:7](x + 0.3 * torch.randn_like(x))
        image: Tensor = self.main[7:](x + 0.3 * torch.randn_like(x))
        return image


def coupled() -> nn.Module:
    """Batch norm without running statistics: in eval mode too, every sample depends on its batch."""
    module = Deconv()
    for part in (module.main[1], module.main[5]):
        part.track_running_stats, part.running_mean, part.running_var = False, None, None
    return module


def odd_size() -> nn.Module:
    """Five colours, 9×7 pixels."""
    return Deconv(5, last=nn.AdaptiveAvgPool2d((9, 7)))


def as_tuple(image: Tensor) -> Any:
    return image.mean(), image


def as_nested(image: Tensor) -> Any:
    return [[image]]


def from_nested(output: Any) -> Tensor:
    image: Tensor = output[0][0]
    return image


def as_dict(image: Tensor) -> Any:
    return {"loss": image.mean(), "image": image}


def as_object(image: Tensor) -> Any:
    return SimpleNamespace(sample=image, extra=None)
