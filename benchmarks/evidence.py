"""How often statistics say what is true: planted modules found, none found in continua, intervals that hold the truth.

    python benchmarks/evidence.py --out benchmarks/measured/evidence.json
            200 toys of a kind, and the generators that ship; a quarter of an hour on one core
    python benchmarks/evidence.py --out benchmarks/measured/evidence.json --page docs/evidence.md
            what was measured, written into the page
    python benchmarks/evidence.py --short                               a smoke test of the same

A toy is a set of influence maps whose truth is known: channels act in blobs on an image of 32×32, each pair of latents
has a strength and smooth noise of its own, and there are as many pairs as a finder would get. In a continuum the blobs
lie at random places of the plane, of a line, around a centre, at one place, or differ in size alone.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from modularity.plantings import CHANNELS, SIDE, TOYS, Array, planted
from pages import markdown, write_into
from scipy.stats import norm
from threadpoolctl import threadpool_limits
from throughput import machine

import counterfactual_probe as cp
from counterfactual_probe.influence.maps import influence_interval
from counterfactual_probe.robustness.ranking import ranked

BLOCKS = 32
NUMBERS = range(2, 9)  # of modules that are tried


LAYERS = {
    "dcgan-faces-small": ("main.2", "main.5", "main.8"),
    "dcgan-faces": ("main.5", "main.8"),
    "vae-faces": ("decoder.level1", "decoder.level2", "decoder.level3"),
    "vae-cifar10": ("decoder.level1", "decoder.level2"),
}


# Of modularity's toys.
KINDS = (
    "three modules",
    "three unequal modules",
    "at random in the plane",
    "at random on a line",
    "around a centre",
    "all at one place",
    "of random sizes",
)


def toy(name: str, seed: int, pairs: int = 64) -> cp.InfluenceMaps:
    """Influence maps of a toy, with blocks of pairs and pair-normalised."""
    (patterns, _), rng = planted(name, seed)
    raw, normalised = np.zeros((2, CHANNELS, BLOCKS, SIDE, SIDE))
    for pair in range(pairs):
        moved = rng.normal(size=(CHANNELS, 6, 6)).repeat(6, 1).repeat(6, 2)[:, :SIDE, :SIDE]
        strength = np.exp(rng.normal(0, 0.7, (CHANNELS, 1, 1)))
        one = strength * patterns * np.exp(moved) + 0.02 * np.abs(moved)
        raw[:, pair % BLOCKS] += one
        normalised[:, pair % BLOCKS] += one / np.linalg.norm(one, axis=(1, 2), keepdims=True)
    sums, unit = torch.from_numpy(raw).float(), torch.from_numpy(normalised).float()
    other, many = torch.zeros(CHANNELS), torch.full((CHANNELS,), pairs)
    return cp.InfluenceMaps(
        sums.sum(1) / pairs, torch.zeros(CHANNELS, SIDE, SIDE), other, other, many, torch.zeros_like(many),
        tuple(cp.UnitSet({"layer": (c,)}) for c in range(CHANNELS)), {"n_pairs": pairs, "generator": name},
        normalised=unit.sum(1) / pairs, block_sums=sums, normalised_block_sums=unit,
    )  # fmt: skip


def found_in(maps: cp.InfluenceMaps, features: Any = "l2") -> int | None:
    """The most modules that are all apart, as ``ModuleFinder.choose`` gives it, without its other measures."""
    apart = [k for k in NUMBERS if cp.ModuleFinder(k, features=features).fit(maps).evidence_.apart]
    return max(apart, default=None)


def evidence(toys: int) -> list[dict[str, Any]]:
    """For each kind of toy, how often which number of modules is found."""
    rows = []
    for name in KINDS:
        truth = TOYS[name].n_modules
        print(f"{name} …", file=sys.stderr)
        found = [found_in(toy(name, seed)) for seed in range(toys)]
        numbers = {str(k): found.count(k) for k in [None, *NUMBERS] if k in found}
        rows.append({"toy": name, "planted": truth, "toys": toys, "found": numbers, "right": found.count(truth) / toys})
    return rows


def generators(pairs: int, names: Sequence[str]) -> list[dict[str, Any]]:
    """What the evidence says of layers of generators that ship: the p-value for each number of modules."""
    rows = []
    for name in names:
        gen = cp.load(name)
        for layer in LAYERS[name]:
            print(f"{name} {layer} …", file=sys.stderr)
            maps = cp.InfluenceMap(gen, layer).attribute(
                n_pairs=pairs, normalise="pair", blocks=BLOCKS, map_size=(32, 32)
            )
            finders = [cp.ModuleFinder(k, features="l2").fit(maps) for k in NUMBERS]
            p_values = {str(finder.n_modules): finder.evidence_.p_value for finder in finders}
            apart = max((finder.n_modules for finder in finders if finder.evidence_.apart), default=None)
            rows.append({"generator": name, "layer": layer, "pairs": pairs, "p_values": p_values, "apart": apart})
    return rows


def intervals(runs: int, pairs: int, names: Sequence[str]) -> list[dict[str, Any]]:
    """How often 95 % intervals of influence, and ± 2 standard errors, hold what all pairs together give."""
    rows = []
    for name in names:
        gen, layer = cp.load(name), LAYERS[name][1]
        print(f"{name} {layer} …", file=sys.stderr)
        influence = single_influences(gen, layer, pairs)
        truth, rng = torch.from_numpy(influence.mean(1)), np.random.default_rng(0)
        for n in (16, 64, 256):
            held = []
            for _ in range(runs):
                some = torch.from_numpy(influence[:, rng.integers(pairs, size=n)])
                mean, error = some.mean(1), some.std(1) / n**0.5
                low, high = influence_interval(mean, error, torch.full((len(mean),), n), 0.95)
                held.append(torch.stack([(low <= truth) & (truth <= high), (mean - truth).abs() <= 2 * error]))
            ours, plain = torch.stack(held).double().mean((0, 2)).tolist()
            least = float(torch.stack(held)[:, 0].double().mean(0).min())
            about = {"generator": name, "layer": layer, "pairs": n, "runs": runs, "of": pairs}
            rows.append(about | {"covered": ours, "least": least, "two_errors": plain})
    return rows


def single_influences(gen: cp.GeneratorAdapter, layer: str, pairs: int) -> Array:
    """(channels, pairs) mean |hybrid − original|, of channels that change anything."""
    hybridizer, parts = cp.Hybridizer(gen, layer), []
    channels = [[channel] for channel in range(gen.layers[layer].channels)]
    for start in range(0, pairs, 32):
        base, source = (gen.sample(32, seed=start, stream=stream) for stream in (0, 1))
        images = hybridizer.hybridize(base, source, units=channels).images
        parts.append((images - gen(base)).abs().mean((2, 3, 4)))
    values = torch.cat(parts, 1).double().numpy()
    return np.asarray(values[values.mean(1) > 0])


def rankings(runs: int) -> list[dict[str, Any]]:
    """How often 95 % intervals of :class:`cp.Ranking` hold the true share, of six modules."""
    rows = []
    for n in (16, 64, 256):
        for rates in ((0.45, 0.45), (0.48, 0.1)):
            for together in (0.0, 0.6):
                hits = simulated_hits((runs, 6, n), rates, together)
                held = [ranked(run[None], ["it"], repetitions=1, confidence=0.95, seed=0) for run in hits]
                covered = np.mean([one.low[0] <= sum(rates) <= one.high[0] for one in held])
                about = {"pairs": n, "rates": rates, "correlation": together, "runs": runs}
                rows.append(about | {"covered": float(covered)})
    return rows


def simulated_hits(
    shape: tuple[int, int, int], rates: tuple[float, float], together: float, seed: int = 0
) -> npt.NDArray[np.bool_]:
    """(runs, sets, pairs, classes) of known rates; a pair's hybrids by several sets are correlated."""
    runs, sets, n = shape
    rng = np.random.default_rng(seed)
    shared, own = rng.normal(size=(runs, 1, n)), rng.normal(size=(runs, sets, n))
    uniform = norm.cdf(math.sqrt(together) * shared + math.sqrt(1 - together) * own)
    return np.stack([uniform < rates[0], uniform > 1 - rates[1]], -1)


def tables(result: dict[str, Any]) -> dict[str, str]:
    """The page's tables, by the name of their place."""
    toys = [[row["toy"], row["planted"] or "none", f"{row['right']:.1%}", found(row)] for row in result["evidence"]]
    layers = [
        [
            f"`{row['generator']}`",
            f"`{row['layer']}`",
            *(f"{p:.3f}" for p in row["p_values"].values()),
            row["apart"] or "none",
        ]
        for row in result["generators"]
    ]
    rankings = [
        [row["pairs"], " and ".join(map(str, row["rates"])), row["correlation"], f"{row['covered']:.1%}"]
        for row in result["rankings"]
    ]
    intervals = [
        [
            f"`{row['generator']}`",
            f"`{row['layer']}`",
            row["pairs"],
            *(f"{row[k]:.1%}" for k in ("covered", "least", "two_errors")),
        ]
        for row in result["intervals"]
    ]
    interval_head = [
        "generator",
        "layer",
        "pairs",
        "intervals of 95 % hold",
        "of the worst channel",
        "± 2 standard errors",
    ]
    numbers = [f"p, K = {k}" for k in result["generators"][0]["p_values"]]
    toys_head = ["channels", "planted", "right", f"found, of {result['evidence'][0]['toys']} toys"]
    return {
        "toys": markdown(toys_head, toys),
        "generators": markdown(["generator", "layer", *numbers, "apart"], layers),
        "intervals": markdown(interval_head, intervals),
        "rankings": markdown(["pairs", "rates", "correlation of a pair's hybrids", "intervals of 95 % hold"], rankings),
    }


def found(row: dict[str, Any]) -> str:
    return ", ".join(f"{'none' if k == 'None' else k}: {count}" for k, count in row["found"].items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toys", type=int, default=200, help="toys of each kind (200)")
    parser.add_argument("--runs", type=int, default=2000, help="simulated rankings of each kind (2000)")
    parser.add_argument("--short", action="store_true", help="a smoke test, not a result")
    parser.add_argument("--out", type=Path, help="a JSON file for the results")
    parser.add_argument("--page", type=Path, help="a page whose tables are made anew, from --out if that is there")
    args = parser.parse_args()
    if args.page is not None and args.out is not None and args.out.exists():
        measured = json.loads(args.out.read_text(encoding="utf-8"))
        write_into(args.page, tables(measured))
        return
    toys, runs, pairs = (2, 50, 64) if args.short else (args.toys, args.runs, 256)
    names = list(LAYERS)[: 1 if args.short else None]
    warnings.filterwarnings("ignore", "NMF stopped")
    with threadpool_limits(1):
        result = {"machine": machine(torch.device("cpu")), "rankings": rankings(runs)}
        result |= {"intervals": intervals(*((20, 512, names) if args.short else (200, 1024, list(LAYERS)[::2])))}
        result |= {"generators": generators(pairs, names), "evidence": evidence(toys)}
    text = json.dumps(result, indent=2)
    print(text)
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
