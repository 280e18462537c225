"""Pairs of base and source latents, drawn or given, fetched block by block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..base.errors import ProbeError
from ..generator import latents as lt
from ..generator.adapter import GeneratorAdapter
from ..generator.latents import Latents


@dataclass(frozen=True)
class Pairs:
    """Bases, and sources if the intervention has any, fetched block by block."""

    n: int
    base: Callable[[int, int], Latents]  # (start, stop) -> latents
    source: Callable[[int, int], Latents] | None = None


def given_pairs(generator: GeneratorAdapter, z1: Latents | None, z2: Latents | None) -> Pairs:
    """Zipped pairs of the caller's own latents, checked."""
    if z1 is None or z2 is None:
        if isinstance(z1, int):
            raise ProbeError(f"the base latents z1 are {z1}; for so many pairs that are sampled, write n_pairs={z1}")
        raise ProbeError("only one of base and source latents is given; give both z1 and z2")
    base, source = generator.check(z1, "the base latents z1"), generator.check(z2, "the source latents z2")
    if base != source:
        raise ProbeError(
            f"z1 holds {base} latents and z2 holds {source}; pairs are zipped, so give as many of each (one "
            "latent for all: z.expand(n, ...))"
        )
    first, second = z1, z2
    return Pairs(
        base,
        lambda start, stop: lt.take(first, slice(start, stop)),
        lambda start, stop: lt.take(second, slice(start, stop)),
    )
