"""Samplers of other libraries as modules, and their hybrids by plain hooks, one sample at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import counterfactual_probe as cp
from counterfactual_probe.generator import latents as lt

SIZE = (3, 8, 8)


def noise(n: int, rng: torch.Generator) -> Tensor:
    return torch.randn(n, *SIZE, generator=rng)


def nothing(n: int, rng: torch.Generator) -> Tensor:
    """For samplers that draw all their noise by themselves: it says how many samples there are."""
    return torch.zeros(n, 1)


class Net(nn.Module):
    """A user's own network: images and a time, one for all samples or one for each, to images."""

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Conv2d(4, 12, 3, padding=1)
        self.middle = nn.Sequential(nn.GroupNorm(3, 12), nn.SiLU(), nn.Conv2d(12, 12, 3, padding=1))
        self.end = nn.Conv2d(12, 3, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        times = torch.as_tensor(t, dtype=x.dtype).reshape(-1, 1, 1, 1).expand(len(x), 1, *x.shape[2:])
        out: Tensor = self.end(torch.relu(self.middle(self.start(torch.cat([x, torch.tanh(times)], 1)))))
        return out


class Sampler(nn.Module):
    """Networks of a library, and its own loop over them."""

    def __init__(self, networks: nn.Module, loop: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.networks = networks
        self.loop = loop

    def forward(self, z: Tensor) -> Tensor:
        return self.loop(z)


def plain(
    gen: cp.GeneratorAdapter,
    latents: Any,
    layer: str,
    calls: Sequence[int],
    values: Mapping[int, Tensor] | None = None,
    units: Sequence[int] = (),
) -> tuple[dict[int, Tensor], Tensor]:
    """What a layer gives at some calls, from 1 on, and the images; its channels ``units`` are set to ``values``.

    The noise of a sample is the same in every run, or what its latents say.
    """
    kept: dict[int, list[Tensor]] = {call: [] for call in calls}
    images = []
    seeds = gen.noise_seeds(latents, range(lt.count(latents)), 0)
    if gen.noise_is_latent:
        latents = lt.noise_of(latents)[0]
    for sample, seed in enumerate(seeds):
        ran = 0

        def hook(_module: nn.Module, _given: Any, output: Tensor, sample: int = sample) -> Tensor | None:
            nonlocal ran
            ran += 1
            if ran not in kept:
                return None
            kept[ran].append(output.clone())
            if values is None:
                return None
            output = output.clone()
            output[:, list(units)] = values[ran][sample : sample + 1, list(units)]
            return output

        handle = gen.module.get_submodule(layer).register_forward_hook(hook)
        try:
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                torch.manual_seed(seed)
                images.append(gen.module.eval()(lt.take(latents, slice(sample, sample + 1))))
        finally:
            handle.remove()
    return {call: torch.cat(rows) for call, rows in kept.items()}, torch.cat(images)
