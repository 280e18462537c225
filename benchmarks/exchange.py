"""What exchanging the modules of generators that ship changes, and what not, beside random sets of their units.

    python benchmarks/exchange.py --out benchmarks/measured/exchange.json
            every layer below; about half an hour on one core, and what is in the file already is not measured again
    python benchmarks/exchange.py --out benchmarks/measured/exchange.json --page docs/exchange.md
            what was measured, written into the page
    python benchmarks/exchange.py --short                               a smoke test of the same

Modules are three, of pair-normalised maps of 256 pairs (``features="l2"``), and are measured on pairs of another seed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pages import markdown, write_into
from throughput import machine

import counterfactual_probe as cp

LAYERS = {
    "vae-cifar10": ("decoder.level1", "decoder.level2"),
    "dcgan-faces-small": ("main.5", "main.8"),
    "dcgan-cifar10": ("main.5",),
    "vae-faces": ("decoder.level2", "decoder.level3"),
    "dcgan-faces": ("main.8",),
    "began-faces": ("blocks.1.1",),
    "cdcgan-eyes": ("main.12",),
}
K, SEED = 3, 1
SETTINGS: dict[str, Any] = {"n_pairs": 64, "controls": 99, "images": 8, "steps": 50}
SHORT: dict[str, Any] = {"n_pairs": 4, "controls": 3, "images": 2, "steps": 3}
OWN, OTHERS = ("other samples", "mixed latents"), ("random sets", "collages")


def finder_for(gen: cp.GeneratorAdapter, layer: str, pairs: int) -> cp.ModuleFinder:
    maps = cp.InfluenceMap(gen, layer).attribute(n_pairs=pairs, normalise="pair", seed=0)
    return cp.ModuleFinder(K, features="l2").fit(maps)


def measured(name: str, layer: str, *, short: bool) -> dict[str, Any]:
    """A row of the file: a layer's modules, how they interact, and how faithful hybrids are."""
    print(f"{name} {layer} …", file=sys.stderr)
    gen = cp.load(name)
    finder = finder_for(gen, layer, 32 if short else 256)
    start = time.process_time()
    found = cp.exchange(gen, finder, seed=SEED, **(SHORT if short else SETTINGS))
    others = ~np.eye(len(found), dtype=bool)
    # Own images and hybrids of the same pairs: their difference has an error of its own.
    assert found.faithfulness is not None
    hybrids = found.faithfulness[2 : 2 + len(found)].mean(0)
    below = found.faithfulness[1] - hybrids
    return {
        "generator": name,
        "layer": layer,
        "settings": found.provenance["exchange"] | {"pairs": found.provenance["n_pairs"], "seed": SEED},
        "reach": found.provenance["reach"],
        "modules": list(found.records()),
        "random_separation_equal_size": found.random_separation[0].mean(0).tolist(),
        "interaction": float(found.interaction[others].mean()),
        "random_interaction": float(found.random_interaction[1][:, others].mean()),
        "joint": float(found.joint[others].mean()),
        "random_joint": float(found.random_joint[1][:, others].mean()),
        "faithfulness": {row["group"]: row["faithfulness"] for row in found.by_group()},
        "hybrids": float(hybrids.mean()),
        "hybrids_below_own": [float(below.mean()), float(below.std(ddof=1) / len(below) ** 0.5)],
        "cpu_seconds": time.process_time() - start,
    }


def tables(result: dict[str, Any]) -> dict[str, str]:
    """The page's tables, by the name of their place."""
    parts, faithful = [], []
    for row in result["layers"]:
        where = [f"`{row['generator']}`", f"`{row['layer']}`"]
        modules = row["modules"]

        def each(name: str, form: str = ".2f", modules: list[dict[str, Any]] = modules) -> str:
            return " ".join(f"{module[name]:{form}}" for module in modules)

        parts.append(
            [
                *where,
                each("cause"),
                each("isolation"),
                each("separation"),
                each("random_separation"),
                each("p_separation"),
                f"{row['interaction']:.2f} ({row['random_interaction']:.2f})",
                f"{row['joint']:.2f} ({row['random_joint']:.2f})",
            ]
        )
        mean, error = row["hybrids_below_own"]
        shown = [f"{row['faithfulness'][group]:.3f}" for group in (*OWN, *OTHERS)]
        faithful.append([*where, *shown[:2], f"{row['hybrids']:.3f}", f"{mean:.3f} ± {error:.3f}", *shown[2:]])
    head = ["generator", "layer"]
    return {
        "modules": markdown(
            [
                *head,
                "cause",
                "isolation",
                "separation",
                "of random sets",
                "p",
                "interaction (random)",
                "joint (random)",
            ],
            parts,
        ),
        "faithfulness": markdown([*head, *OWN, "hybrids of modules", "below mixed latents by", *OTHERS], faithful),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a smoke test, not a result")
    parser.add_argument("--out", type=Path, help="a JSON file for the results")
    parser.add_argument("--page", type=Path, help="a page whose tables are made anew, from --out if that is there")
    args = parser.parse_args()
    there = args.out is not None and args.out.exists()
    result = json.loads(args.out.read_text(encoding="utf-8")) if there else {"layers": []}
    if args.page is not None and there:
        write_into(args.page, tables(result))
        return
    warnings.filterwarnings("ignore", "NMF stopped")
    torch.set_num_threads(1)
    result["machine"] = machine(torch.device("cpu"))
    layers = {"vae-cifar10": ("decoder.level2",)} if args.short else LAYERS
    known = {(row["generator"], row["layer"]) for row in result["layers"]}
    for name, layer in [(name, layer) for name, several in layers.items() for layer in several]:
        if (name, layer) in known:
            continue
        result["layers"].append(measured(name, layer, short=args.short))
        if args.out is not None:
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
