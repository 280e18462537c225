"""Hybrids per second, layer by layer, relative to plain generation in the same run.

Compare the ratio between machines: 1 means that a hybrid costs as much as an image.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

import counterfactual_probe as cp

GENERATOR = "dcgan-faces"


def measure_layer(gen: cp.GeneratorAdapter, layer: str, *, pairs: int, rounds: int) -> dict[str, Any]:
    """Medians over rounds in which maps of all channels and plain images take turns."""
    z1, z2 = gen.sample(pairs, seed=0), gen.sample(pairs, seed=1)
    channels = gen.layers[layer].channels
    probe = cp.InfluenceMap(gen, layer)

    def hybrids() -> Any:
        return probe.attribute(z1, z2).provenance["hybrids_per_eval"]

    batch = hybrids()  # also the warm-up
    batches = -(-pairs * channels // batch)
    latents = gen.sample(batch, seed=2)

    @torch.inference_mode()
    def images() -> None:
        for _ in range(batches):
            gen.module(latents)

    images()
    hybrid_rates, image_rates = [], []
    for _ in range(rounds):
        hybrid_rates.append(pairs * channels / seconds_of(hybrids, gen.device))
        image_rates.append(batches * batch / seconds_of(images, gen.device))
    ratios = [hybrid / image for hybrid, image in zip(hybrid_rates, image_rates, strict=True)]
    return {
        "layer": layer,
        "channels": channels,
        "hybrids_per_eval": batch,
        "hybrids_per_second": median(hybrid_rates),
        "images_per_second": median(image_rates),
        "ratio": median(ratios),
        "ratio_range": [min(ratios), max(ratios)],
    }


def seconds_of(work: Callable[[], Any], device: torch.device) -> float:
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def machine(device: torch.device) -> dict[str, Any]:
    """The machine and versions that the numbers depend on."""
    return {
        "processor": _processor(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "counterfactual_probe": cp.__version__,
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


def table(layers: list[dict[str, Any]]) -> str:
    """The results as text, one line per layer."""
    lines = [f"{'layer':10}{'channels':>10}{'batch':>8}{'hybrids/s':>12}{'images/s':>12}{'ratio':>8}   range"]
    for row in layers:
        low, high = row["ratio_range"]
        lines.append(
            f"{row['layer']:10}{row['channels']:>10}{row['hybrids_per_eval']:>8}"
            f"{row['hybrids_per_second']:>12.1f}{row['images_per_second']:>12.1f}"
            f"{row['ratio']:>8.2f}   {low:.2f}–{high:.2f}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", nargs="+", help="by default all layers of the generator")
    parser.add_argument("--pairs", type=int, help="pairs of latents per round (16; short form: 4)")
    parser.add_argument("--rounds", type=int, help="rounds per layer (7; short form: 3)")
    parser.add_argument("--device", help="by default the CPU")
    parser.add_argument("--threads", type=int, help="torch's threads; by default torch's own choice")
    parser.add_argument("--short", action="store_true", help="under a minute, for CI: a smoke test, not a result")
    parser.add_argument("--out", type=Path, help="a JSON file for the results")
    args = parser.parse_args()
    pairs = args.pairs or (4 if args.short else 16)
    rounds = args.rounds or (3 if args.short else 7)
    if args.threads:
        torch.set_num_threads(args.threads)

    gen = cp.load(GENERATOR, device=args.device)
    layers = []
    for layer in args.layers or gen.layers:
        print(f"{layer} …", file=sys.stderr)
        layers.append(measure_layer(gen, layer, pairs=pairs, rounds=rounds))
    result = {
        "generator": GENERATOR,
        "pairs": pairs,
        "rounds": rounds,
        "machine": machine(gen.device),
        "layers": layers,
    }
    print(table(layers))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
