"""Spectral dependency ratios of 512 → 256 → 128 channels, compared with a straightforward loop over pathways.

    python benchmarks/spectral.py                 main.3 → main.6 of dcgan-faces, 16.8 million pathways
    python benchmarks/spectral.py --biggan        also all pairs of BigGAN-deep-256 with random weights, as a table

The loops are timed on a random subset of the pathways, and their times scaled to all; this library is timed on all
pathways. All take turns in one process. "loop" computes the Fourier transforms of both kernels for each pathway; "loop,
cached" has the squared transforms of all kernels precomputed, which is not in its time.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import numpy.typing as npt
import torch
from throughput import machine

import counterfactual_probe as cp

EARLIER, LATER, STRIDE = "main.3", "main.6", 2
SUBSET, ROUNDS = 4000, 5
Floats = npt.NDArray[np.float64]


def power(kernel: Floats, points: int, step: int) -> Floats:
    """|k̂(s·u)|² on a grid that is large enough (conventions 16)."""
    side = step * (kernel.shape[-1] - 1) + 1
    wide = np.zeros((side, side))
    wide[::step, ::step] = kernel
    found: Floats = np.abs(np.fft.fft2(wide, (points, points))) ** 2
    return found


def loop(g: Floats, h: Floats, pathways: npt.NDArray[np.int64]) -> Floats:
    points = STRIDE * (g.shape[-1] - 1) + h.shape[-1]
    found = []
    for i, j, o in pathways:
        one, two = power(g[i, j], points, STRIDE), power(h[j, o], points, 1)
        found.append((one * two).mean() / (one.mean() * two.mean()))
    return np.array(found)


def cached_loop(one: Floats, two: Floats, pathways: npt.NDArray[np.int64]) -> Floats:
    """The loop with precomputed transforms, scaled to a mean of 1."""
    return np.array([(one[i, j] * two[j, o]).mean() for i, j, o in pathways])


def transforms(kernels: Floats, points: int, step: int) -> Floats:
    flat = kernels.reshape(-1, *kernels.shape[2:])
    found = np.stack([power(kernel, points, step) for kernel in flat])
    scaled: Floats = (found / found.mean((1, 2), keepdims=True)).reshape(*kernels.shape[:2], points, points)
    return scaled


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(rounds: int, subset: int) -> None:
    gen = cp.load("dcgan-faces")
    sd = cp.SpectralDependency(gen)
    found = sd.pathways(EARLIER, LATER)
    g, h = (part.weight.detach().double().numpy() for part in (found.earlier, found.later))
    rng = np.random.default_rng(0)
    pathways = np.stack([rng.integers(0, size, subset) for size in found.shape], 1)
    # The second loop needs only the kernels on its pathways; duplicates are removed to save memory.
    points = STRIDE * (g.shape[-1] - 1) + h.shape[-1]
    mids = np.unique(pathways[:8, 1])
    near = np.stack([rng.integers(0, found.shape[0], subset), rng.choice(len(mids), subset), pathways[:, 2]], 1)
    one, two = transforms(g[:, mids], points, STRIDE), transforms(h[mids], points, 1)
    seconds: dict[str, list[float]] = {"loop": [], "loop, cached": [], "measure": [], "table": []}
    for _ in range(rounds):
        seconds["loop"].append(timed(lambda: loop(g, h, pathways)) / subset * found.count)
        seconds["loop, cached"].append(timed(lambda: cached_loop(one, two, near)) / subset * found.count)
        seconds["measure"].append(timed(lambda: sd.measure(EARLIER, LATER)))
        seconds["table"].append(timed(lambda: sd.table([(EARLIER, LATER)])))
    ratio = sd.measure(EARLIER, LATER).ratio.numpy()
    error = float(np.abs(loop(g, h, pathways) - ratio[tuple(pathways.T)]).max())
    print(f"{EARLIER} → {LATER} of dcgan-faces: {found.count:,} pathways; largest difference from the loop {error:.1e}")
    print(f"the loops: {subset} pathways at random, scaled; medians of {rounds} rounds")
    for name, values in seconds.items():
        gain = median(a / b for a, b in zip(seconds["loop"], values, strict=True))
        print(
            f"{name:14} {median(values):10.2f} s   {gain:8.0f} × the loop   ({min(values):.2f} to {max(values):.2f} s)"
        )
    print(f"most memory held: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB, torch included")
    latents = gen.sample(64)
    took = timed(lambda: [sd.measure_activations(layer, latents) for layer in gen.layers])
    print(f"activation ratios of 64 images, all {len(gen.layers)} layers: {took:.2f} s")


def biggan() -> None:
    from counterfactual_probe.adapters.biggan_deep import random_biggan_deep

    gen = random_biggan_deep("biggan-deep-256")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sd = cp.SpectralDependency(gen)
    pairs = sd.pairs()
    took = timed(sd.table)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    total = sum(pair.pathways for pair in pairs)
    print(f"BigGAN-deep-256: {len(pairs)} pairs, {sum(pair.skip for pair in pairs)} of them skips, {total:,} pathways")
    print(f"the table of all: {took:.1f} s; memory {before / 2**20:.2f} GiB before and {after / 2**20:.2f} GiB at most")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--subset", type=int, default=SUBSET)
    parser.add_argument("--biggan", action="store_true")
    options = parser.parse_args()
    print(machine(torch.device("cpu")))
    compare(options.rounds, options.subset)
    if options.biggan:
        biggan()


if __name__ == "__main__":
    main()
