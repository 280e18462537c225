"""The cost of scoring classifiers on hybrids, relative to making the hybrids and running the classifiers plainly.

    python benchmarks/robustness.py                     # ratio, memory, and a sweep over five layers of cdcgan-eyes
    python benchmarks/robustness.py --sweep-pairs 0     # without the sweep, which takes minutes

"Plainly" means ``Hybridizer.hybridize`` for all unit sets at once, and then each classifier on all hybrids, bases and
sources, in batches of 32, with preprocessing. "strict" leaves preprocessing out of the reference. Seconds are CPU time,
since the machine may be shared.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

import counterfactual_probe as cp
from counterfactual_probe.classifiers.timm_models import timm_classifier

CLASSES = ("brown", "blue")
KINDS: dict[str, dict[str, Any]] = {
    "resnet10t": {},
    "mobilenetv3_small_075": {},
    "vit_tiny_patch16_224": {"img_size": 64, "patch_size": 8, "depth": 6},
}
BATCH = 32


def classifiers(kind: str) -> list[cp.Classifier]:
    if kind == "imagenet":
        return [cp.load_classifier(f"efficientnet-lite{size}") for size in range(3)]
    names = [f"class {k}" for k in range(8)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return [
            timm_classifier(name, pretrained=False, class_names=names, size=64, **own) for name, own in KINDS.items()
        ]


def units_of(gen: cp.GeneratorAdapter, layers: Sequence[str]) -> dict[str, dict[str, list[int]]]:
    """Three random modules of each layer: the time does not depend on their channels."""
    rng = np.random.default_rng(0)
    found = {}
    for name in layers:
        labels = rng.integers(0, 3, gen.layers[name].channels)
        found[name] = {str(k): np.flatnonzero(labels == k).tolist() for k in range(3)}
    return found


def pairs(gen: cp.GeneratorAdapter, n: int) -> tuple[Any, Any]:
    return gen.sample(n, classes=CLASSES[0]), gen.sample(n, stream=1, classes=CLASSES[1])


def scored(gen: cp.GeneratorAdapter, own: Sequence[cp.Classifier], layers: Sequence[str], n: int) -> cp.Robustness:
    z1, z2 = pairs(gen, n)
    probe = cp.RobustnessProbe(gen, own)
    return probe.score(z1, z2, units_by_layer=units_of(gen, layers), classes=CLASSES, class_map={"brown": 0, "blue": 1})


def plain(gen: cp.GeneratorAdapter, own: Sequence[cp.Classifier], layers: Sequence[str], n: int) -> tuple[float, float]:
    """Seconds for everything, hybrids included, and for preprocessing alone."""
    start = time.process_time()
    units = [{layer: channels} for layer, modules in units_of(gen, layers).items() for channels in modules.values()]
    z1, z2 = pairs(gen, n)
    hybrids = cp.Hybridizer(gen, list(layers)).hybridize(z1, z2, units=units)
    if hybrids.source is None:
        raise RuntimeError("hybrids of two latents have a source")
    images = torch.cat([hybrids.images.flatten(0, 1), hybrids.base, hybrids.source])
    preparing = 0.0
    with torch.inference_mode():
        for classifier in own:
            for batch in torch.split(images, BATCH):
                before = time.process_time()
                inputs: Tensor = classifier.transform((batch + 1) / 2)
                preparing += time.process_time() - before
                classifier.module(inputs)
    return time.process_time() - start, preparing


def ratio(layers: Sequence[str], n: int, kind: str, rounds: int) -> None:
    gen = cp.load("cdcgan-eyes")
    own = classifiers(kind)
    scored(gen, own, layers, 4)
    ratios, strict = [], []
    for _ in range(rounds):
        whole, preparing = plain(gen, own, layers, n)
        ours = _seconds(lambda: scored(gen, own, layers, n))
        ratios.append(ours / whole)
        strict.append(ours / (whole - preparing))
        print(f"  {ours:.2f} s scored, {whole:.2f} s plainly, of which {preparing:.2f} s preprocessing", flush=True)
    print(f"{kind}, {', '.join(layers)}, {n} pairs: {median(ratios):.3f} times the cost, strict {median(strict):.3f}")


def memory(layers: Sequence[str], counts: Sequence[int]) -> None:
    """Peak memory for each number of pairs, in a process of its own."""
    for n in counts:
        done = subprocess.run(
            [sys.executable, __file__, "--alone", str(n), "--layers", *layers],
            check=True,
            capture_output=True,
            text=True,
        )
        print(f"{n} pairs: peak memory {done.stdout.strip()} MB")


def alone(layers: Sequence[str], n: int) -> None:
    gen = cp.load("cdcgan-eyes")
    scored(gen, classifiers("imagenet"), layers, n)
    print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f}")


def _seconds(run: Callable[[], Any]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", nargs="+", default=["main.9", "main.12", "main.15"])
    parser.add_argument("--pairs", type=int, default=16)
    parser.add_argument("--kinds", nargs="+", default=["small", "imagenet"], help="kinds of classifiers (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", type=int, nargs="*", default=[16, 128], help="numbers of pairs to compare")
    parser.add_argument(
        "--sweep-pairs", type=int, default=64, help="pairs of the sweep over all layers; 0 leaves it out"
    )
    parser.add_argument("--alone", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        alone(options.layers, options.alone)
        return
    for kind in options.kinds:
        if options.rounds:
            ratio(options.layers, options.pairs, kind, options.rounds)
    memory(options.layers[-1:], options.memory)
    if options.sweep_pairs:
        gen = cp.load("cdcgan-eyes")
        own = classifiers("small")
        seconds = _seconds(lambda: scored(gen, own, list(gen.layers), options.sweep_pairs))
        print(f"5 layers × 3 modules × {options.sweep_pairs} pairs × 3 classifiers: {seconds:.0f} s")


if __name__ == "__main__":
    main()
