"""BigGAN-deep-256 with random weights: hybrids of channels after late blocks, against plain hooks.

Weights are random, because the trained ones would have to be downloaded; spectral norms have converged and
batch statistics are those of samples, so that activations are scaled as in a trained network.
"""

from __future__ import annotations

import resource
import time
from typing import Any

import peers
import torch
from counterfactual_probe.adapters.biggan_deep import random_biggan_deep
from torch import Tensor

import counterfactual_probe as cp
from counterfactual_probe.generator.device import multiplies_bfloat16

# Early, middle and late; layers.8 is the attention.
BLOCKS = ("generator.layers.2", "generator.layers.6", "generator.layers.10", "generator.layers.12")
PRECISIONS = ("float32", "bf16-diff") if multiplies_bfloat16(torch.device("cpu")) else ("float32",)
# More than the few hybrids that would be run as whole forwards.
CHANNELS, MORE, PAIRS, ROUNDS = 8, 24, 2, 2
LARGEST_GIB = 4.0  # for the whole process, module and hooks included


def biggan_rows() -> dict[str, Any]:
    """Seconds per hybrid after each block, for hooks and for this library taking turns, and the memory of the maps."""
    gen = random_biggan_deep("biggan-deep-256")
    z1, z2 = (gen.sample(PAIRS, seed=seed, classes="koala") for seed in (0, 1))
    rows = {}
    for block in BLOCKS:
        seconds: dict[str, list[float]] = {name: [] for name in ("hooks", *PRECISIONS)}
        maps: dict[str, Tensor] = {}
        units = [[channel] for channel in range(CHANNELS)]
        more = [[channel] for channel in range(MORE)]
        for _ in range(ROUNDS):
            with torch.inference_mode():
                map_of = peers.hooks(gen.module, block, z1, z2)
                start = time.perf_counter()
                maps["hooks"] = torch.stack([map_of(channel) for channel in range(CHANNELS)])
                seconds["hooks"].append((time.perf_counter() - start) / CHANNELS / PAIRS)
            for precision in PRECISIONS:
                # Set-up and clean runs take the same time for few and for many channels: the difference is hybrids.
                few, maps[precision] = _attributed(gen, block, (z1, z2), units, precision)
                many, _ = _attributed(gen, block, (z1, z2), more, precision)
                seconds[precision].append((many - few) / (MORE - CHANNELS) / PAIRS)
        size = maps["hooks"].norm()
        best = {name: sorted(values)[ROUNDS // 2] for name, values in seconds.items()}
        rows[block] = {
            name: {
                "seconds_per_hybrid": value,
                "ratio": best["hooks"] / value,
                "relative_error": float((maps[name] - maps["hooks"]).norm() / size),
            }
            for name, value in best.items()
        }
        for name, row in rows[block].items():
            shown = "{seconds_per_hybrid:8.4f} s a hybrid, {ratio:5.1f} × hooks, error {relative_error:.0e}".format(
                **row
            )
            print(f"{block:22}{name:11}{shown}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory of the whole process {peak:.1f} GiB, at most {LARGEST_GIB:g}")
    if peak > LARGEST_GIB:
        raise SystemExit(f"the process took {peak:.1f} GiB; the limit is {LARGEST_GIB:g}")
    return {"rows": rows, "peak_gib": peak}


def _attributed(
    gen: cp.GeneratorAdapter, block: str, pairs: tuple[Any, Any], units: Any, precision: Any
) -> tuple[float, Tensor]:
    start = time.perf_counter()
    found = cp.InfluenceMap(gen, block).attribute(*pairs, units=units, precision=precision)
    if found.provenance["executor"] != "prepared":
        raise SystemExit(f"the fast path was not taken: {found.provenance['executor']}")
    return time.perf_counter() - start, found.maps


if __name__ == "__main__":
    biggan_rows()
