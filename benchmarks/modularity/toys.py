"""Generators whose modules are known: each channel of the layer "hidden" acts where it was planted."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

import counterfactual_probe as cp
from counterfactual_probe.testing import Model1

from .plantings import CHANNELS, SIDE, TOYS, Labels, planted

LAYER = "hidden"
MODEL_1 = "Model 1 of S003"
_UNITS = 16  # of each of its modules
_BLOCKS, _SPREAD = 6, 0.7  # of the smooth noise: blocks on a side, and standard deviation of its logarithm
_LEAK = 0.02  # how strong channels are elsewhere


class PlantedGenerator(nn.Module):
    """An image is a sum over channels of S(a_c z_d(c)) (pattern_c · exp(noise_c) + leak · noise_c).

    S is a leaky ReLU, d(c) the latent that drives channel c, and the noise, smooth and of each channel alone, is a part
    of the latents.

    Args:
        patterns: (channels, side, side)
        drivers: (channels,) number of the latent that drives each channel.
        in_place: whether the layer's channels are active where they act, or have no place.
        rng: for a.
    """

    def __init__(self, patterns: Tensor, drivers: Tensor, in_place: bool, rng: torch.Generator) -> None:
        super().__init__()
        self.in_place = in_place
        self.patterns = nn.Parameter(patterns.float())
        self.into = nn.Parameter(1 + torch.rand(len(patterns), generator=rng))
        self.drivers = nn.Buffer(drivers)
        self.latents = int(drivers.max()) + 1
        self.hidden = nn.LeakyReLU(0.25)

    def forward(self, z: Tensor) -> Tensor:
        driven = z[:, : self.latents][:, self.drivers] * self.into
        noise = z[:, self.latents :].view(len(z), -1, _BLOCKS, _BLOCKS)
        for dimension in (2, 3):
            side = self.patterns.shape[dimension - 1]
            noise = noise.repeat_interleave(-(-side // _BLOCKS), dimension).narrow(dimension, 0, side)
        placed = self.patterns * (_SPREAD * noise).exp() + _LEAK * noise
        if self.in_place:
            acting = self.hidden(driven[:, :, None, None] * placed)
        else:
            acting = self.hidden(driven)[:, :, None, None] * placed
        return torch.sum(acting, 1, keepdim=True)

    def sample(self, n: int, rng: torch.Generator) -> Tensor:
        return torch.randn(n, self.latents + len(self.patterns) * _BLOCKS**2, generator=rng)


def toy_generator(name: str, seed: int) -> tuple[cp.GeneratorAdapter, Labels | None]:
    """A toy as a generator, and (channels,) the module of each channel of its layer; None in a continuum."""
    if name == MODEL_1:
        model = Model1.drawn(3, units=_UNITS, side=SIDE, seed=seed)
        return model.generator(), model.truth
    (patterns, modules), rng = planted(name, seed)
    toy = TOYS[name]
    drivers = np.arange(CHANNELS) if modules is None else drivers_of(modules, toy.latent_of, rng)
    torch_rng = torch.Generator().manual_seed(seed)
    module = PlantedGenerator(torch.from_numpy(patterns), torch.from_numpy(drivers), toy.in_place, torch_rng).eval()
    axes = {LAYER: "n c h w" if toy.in_place else "n c"}
    return cp.wrap(module, module.sample, layers=[LAYER], axes=axes, name=name), modules


def drivers_of(modules: Labels, latent_of: str, rng: np.random.Generator) -> Labels:
    """(channels,) the latent of each channel."""
    if latent_of == "module":
        return modules
    if latent_of == "channel":
        return np.arange(len(modules))
    drivers = np.empty_like(modules)
    for k in range(modules.max() + 1):  # an equal share of each module for each latent
        members = rng.permutation(np.flatnonzero(modules == k))
        drivers[members] = np.arange(len(members)) % (modules.max() + 1)
    return drivers


def toy_names() -> tuple[str, ...]:
    """Of all kinds: planted ones, then continua."""
    return MODEL_1, *sorted(TOYS, key=lambda name: TOYS[name].n_modules is None)
