"""Checks of latents: they depend on the seed, and on nothing else."""

from __future__ import annotations

import torch

from ..generator import latents as lt
from ..generator.adapter import BASE, SOURCE
from ..generator.latents import Latents
from .bench import Bench
from .outcome import Failed

_CURE = "take all random numbers from the rng that sample_latents is given, as in torch.randn(n, 128, generator=rng)"


def repeat(bench: Bench) -> str:
    """Latent i of a seed and stream is the same each time, by itself or among others."""
    sample, seed = bench.adapter.sample, bench.seed
    together = sample(4, seed=seed, stream=SOURCE)
    for label, found in (
        ("sampled a second time", sample(4, seed=seed, stream=SOURCE)),
        ("sampled one by one", lt.join([sample(1, seed=seed, stream=SOURCE, start=i) for i in range(4)])),
    ):
        if name := _first_difference(together, found):
            raise Failed(f"{name} of seed {seed} differ if they are {label}; {_CURE}")
    return "latents of one seed are the same if sampled together, one by one, or a second time"


def differ(bench: Bench) -> str:
    """Other seeds, streams and indices give other latents."""
    sample, seed = bench.adapter.sample, bench.seed
    here = sample(4, seed=seed, stream=BASE)
    for label, other in (
        (f"seed {seed} and seed {seed + 1}", sample(4, seed=seed + 1, stream=BASE)),
        ("stream 0 (bases) and stream 1 (sources)", sample(4, seed=seed, stream=SOURCE)),
        ("indices 0 to 3 and 4 to 7", sample(4, seed=seed, stream=BASE, start=4)),
    ):
        if not _first_difference(here, other):
            raise Failed(f"{label} give the same four latents; {_CURE}")
    return "other seeds, streams and indices give other latents"


def _first_difference(one: Latents, two: Latents) -> str | None:
    given = dict(lt.named_tensors(two))
    for name, value in lt.named_tensors(one):
        if name not in given or not torch.equal(value, given[name]):
            return name
    return None
