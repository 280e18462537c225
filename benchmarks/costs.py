"""Operations that must stay cheap: sums over blocks, confidence of modules, renders of the scene, metrics of codes.

    python benchmarks/costs.py                 dcgan-faces, every layer of its report
    python benchmarks/costs.py --layers main.8 --rounds 9

Maps with and without blocks take turns, and their ratio is what matters; the other figures are seconds on this machine.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch
from throughput import GENERATOR, machine

import counterfactual_probe as cp
from counterfactual_probe.data import Scene
from counterfactual_probe.modules.confidence import BLOCKS, ExpectedDisagreement
from counterfactual_probe.reporting.choice import default_layers


def seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def blocks(gen: cp.GeneratorAdapter, layer: str, *, pairs: int, rounds: int) -> None:
    """The median ratio of the times of maps with and without sums over blocks, and the time of confidence."""
    influence = cp.InfluenceMap(gen, layer)
    influence.attribute(n_pairs=2)  # the warm-up
    plain, summed = [], []
    for seed in range(rounds):
        plain.append(seconds(partial(influence.attribute, n_pairs=pairs, seed=seed)))
        summed.append(seconds(partial(influence.attribute, n_pairs=pairs, seed=seed, blocks=BLOCKS)))
    ratios = [one / other for one, other in zip(summed, plain, strict=True)]
    maps = influence.attribute(n_pairs=pairs, blocks=BLOCKS, normalise="pair")
    finders = [cp.ModuleFinder(3, features=kind).fit(maps) for kind in ("bits", "l2")]
    taken = [seconds(partial(getattr, finder, "confidence_")) for finder in finders]
    print(
        f"{layer:8} {pairs} pairs: {median(plain):6.2f} s, with {BLOCKS} blocks {median(ratios):.3f} of it "
        f"({min(ratios):.3f}–{max(ratios):.3f}); confidence {taken[0]:.2f} s of bits, {taken[1]:.2f} s of l2",
        flush=True,
    )


def scene(rounds: int, n: int = 4000) -> None:
    made = Scene(64)
    labels = made.sample(n, seed=0)
    tracing = seconds(lambda: made.render(labels))
    rates = [n / seconds(lambda: made.render(labels)) for _ in range(rounds)]
    print(f"scene    {median(rates):,.0f} images of 64×64 a second; {tracing:.1f} s for the first {n}, shapes traced")


def disentanglement(n: int = 2000, codes: int = 12) -> None:
    """Mixtures of the scene's factors and of noise."""
    rng = np.random.default_rng(0)
    factors = Scene(8).sample(n, seed=0)
    given = (
        np.concatenate([factors, rng.standard_normal((n, codes - factors.shape[1]))], 1)
        @ np.linalg.qr(rng.standard_normal((codes, codes)))[0]
    )
    taken = {
        name: seconds(partial(metric, given, factors))
        for name, metric in (("mig", cp.metrics.mig), ("dci", cp.metrics.dci), ("sap", cp.metrics.sap))
    }
    print(f"metrics  of {n} × {codes} codes, six factors: " + ", ".join(f"{k} {v:.1f} s" for k, v in taken.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", nargs="+")
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="torch's threads; by default torch's own choice")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore", ExpectedDisagreement)
    gen = cp.load(GENERATOR)
    print(machine(gen.device))
    for layer in args.layers or default_layers(gen):
        blocks(gen, layer, pairs=args.pairs, rounds=args.rounds)
    scene(args.rounds)
    disentanglement()


if __name__ == "__main__":
    main()
