"""Influence maps here and with other libraries, in one process, taking turns: time, ratio and error.

    python benchmarks/compare.py                  the table, about ten minutes
    python benchmarks/compare.py --biggan         BigGAN-deep-256 too
    python benchmarks/compare.py --short          against plain hooks alone; fails on a clear regression

The task is the maps of all channels of some layers of ``dcgan-faces``, for the same pairs of latents.
Slow libraries may run on some of a layer's channels, with their time scaled to all; the table says so.
Two further lines are about this library alone: replay against a split by hand, and two ranks against one.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import peers
import ranks
import split
import torch
from throughput import machine, seconds_of
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import counterfactual_probe as cp
from counterfactual_probe.generator.device import multiplies_bfloat16

LAYERS = ("main.2", "main.5", "main.8", "main.11")
# Name -> (maker, library it needs, share of the channels that it is timed on).
PEERS: dict[str, tuple[peers.Maker, str | None, float]] = {
    "hooks": (peers.hooks, None, 1.0),
    "nnsight": (peers.nnsight, "nnsight", 1.0),
    "nnsight + skip": (peers.nnsight_skip, "nnsight", 1.0),
    "pyvene": (peers.pyvene, "pyvene", 1 / 16),
}
# On other processors "bf16-diff" computes the same as float32.
OURS = ("float32", "bf16-diff") if multiplies_bfloat16(torch.device("cpu")) else ("float32",)
# The threshold of --short, far below what is measured: it detects a loss of the fast path.
SHORT_BAR = 1.8


def chosen_channels(gen: cp.GeneratorAdapter, layer: str, share: float) -> list[int]:
    channels = gen.layers[layer].channels
    return list(range(0, channels, max(1, round(1 / share))))


def peer_maps(gen: cp.GeneratorAdapter, peer: str, z1: Any, z2: Any, share: float) -> tuple[Tensor, float]:
    """Maps of the chosen channels of all layers, and the seconds that all channels would take."""
    maker = PEERS[peer][0]
    maps, seconds = [], 0.0
    with torch.inference_mode():
        for layer in LAYERS:
            chosen = chosen_channels(gen, layer, share)
            start = time.perf_counter()
            map_of = maker(gen.module, layer, z1, z2)
            ready = time.perf_counter()
            maps += [map_of(channel) for channel in chosen]
            scale = gen.layers[layer].channels / len(chosen)
            seconds += ready - start + scale * (time.perf_counter() - ready)
    return torch.stack(maps), seconds


def our_maps(gen: cp.GeneratorAdapter, precision: Any, z1: Any, z2: Any) -> tuple[Tensor, float, dict[str, Any]]:
    start = time.perf_counter()
    found = cp.InfluenceMap(gen, LAYERS).attribute(z1, z2, precision=precision)
    return found.maps, time.perf_counter() - start, found.provenance


def errors(maps: Tensor, reference: Tensor) -> dict[str, float]:
    gap, size = (maps - reference).flatten(1), reference.flatten(1).norm(dim=1)
    moved = size > 0
    relative = gap.norm(dim=1)[moved] / size[moved]
    overall = float(gap.norm() / reference.norm())
    return {"max_abs": float(gap.abs().max()), "relative": overall, "worst_channel": float(relative.max())}


def compare(gen: cp.GeneratorAdapter, pairs: int, rounds: int, names: Sequence[str]) -> dict[str, Any]:
    """Medians over rounds in which all take turns, after a warm-up of one pair each."""
    z1: Any = gen.sample(pairs, seed=0)
    z2: Any = gen.sample(pairs, seed=1)
    seconds: dict[str, list[float]] = {name: [] for name in (*names, *OURS)}
    error: dict[str, dict[str, float]] = {}
    for name in names:
        peer_maps(gen, name, z1[:1], z2[:1], 1 / 64)
    for precision in OURS:
        our_maps(gen, precision, z1[:1], z2[:1])
    reference = None
    for _ in range(rounds):
        for name in names:
            share = PEERS[name][2]
            maps, took = peer_maps(gen, name, z1, z2, share)
            seconds[name].append(took)
            if name == "hooks":
                reference = maps
            elif share == 1.0 and reference is not None:
                error[name] = errors(maps, reference)
        for precision in OURS:
            maps, took, about = our_maps(gen, precision, z1, z2)
            if about["executor"] != "prepared" or about["precision"] != precision:
                raise SystemExit(f"the fast path was not taken: {about['executor']}, {about['precision']}")
            seconds[precision].append(took)
            assert reference is not None
            error[precision] = errors(maps, reference)
    rows = {
        name: {
            "seconds": median(values),
            "ratios_to": {other: median(ratios) for other, ratios in _ratios(seconds, values, names).items()},
            "ratio_ranges_to": {
                other: [min(ratios), max(ratios)] for other, ratios in _ratios(seconds, values, names).items()
            },
            "error": error.get(name),
            "share_timed": PEERS[name][2] if name in PEERS else 1.0,
        }
        for name, values in seconds.items()
    }
    return {"pairs": pairs, "rounds": rounds, "rows": rows}


def _ratios(seconds: dict[str, list[float]], values: list[float], names: Sequence[str]) -> dict[str, list[float]]:
    """How many times as fast as each of the named, round by round."""
    return {other: [a / b for a, b in zip(seconds[other], values, strict=True)] for other in names}


def roofline(gen: cp.GeneratorAdapter, pairs: int, seconds: float) -> dict[str, float]:
    """The rate of the dense convolutions after each layer, as a share of the best convolution's on this machine."""
    flops = 0
    for layer in LAYERS:
        z = gen.sample(1)
        counter = FlopCounterMode(display=False)
        with torch.inference_mode(), counter:
            gen.module(z)
        counts = counter.get_flop_counts()
        names = list(gen.submodules)
        after = names[names.index(layer) + 1 :]
        sizes = [sum(counts.get(f"{type(gen.module).__name__}.{name}", {}).values()) for name in after]
        # The first linear submodule after the layer processes only the changed channel.
        first = next((i for i, size in enumerate(sizes) if size), None)
        useful = sum(sizes) - (sizes[first] if first is not None else 0)
        flops += useful * gen.layers[layer].channels * pairs
    x = torch.randn(32, 128, 32, 32).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(128, 128, 3, 3).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        best = min(seconds_of(lambda: F.conv2d(x, weight, padding=1), x.device) for _ in range(15))
    rate = 2 * x[:, 0].numel() * 128 * 128 * 9 / best
    return {"tflop": flops / 1e12, "best_gflops": rate / 1e9, "share": flops / seconds / rate}


def captum_cost(gen: cp.GeneratorAdapter) -> dict[str, float]:
    """Time of captum and of a hook for one channel and one pair, at a layer of medium size."""
    latents: Any = (gen.sample(1, seed=0), gen.sample(1, seed=1))
    with torch.inference_mode():
        makers = {"captum": peers.captum, "hooks": peers.hooks}
        seconds = {}
        for name, maker in makers.items():
            map_of = maker(gen.module, "main.5", *latents)
            map_of(0)
            seconds[name] = seconds_of(lambda map_of=map_of: map_of(1), gen.device)  # type: ignore[misc]
    return seconds | {"ratio": seconds["captum"] / seconds["hooks"]}


def tolerance_row(gen: cp.GeneratorAdapter, tolerance: float, reference: str, baseline: float) -> dict[str, Any]:
    """Maps of a given relative error for every channel, against a peer with the fixed number of pairs that suffices.

    ``baseline`` is the peer's seconds per hybrid, measured in this run on all channels at 16 pairs.
    """
    start = time.perf_counter()
    found = cp.InfluenceMap(gen, LAYERS).attribute(n_pairs=1024, tolerance=tolerance)
    took = time.perf_counter() - start
    # Errors shrink with the square root of the pairs: the pairs that each channel needs, and their 95 % quantile.
    needed = found.n_pairs * (found.relative_error / tolerance) ** 2
    fixed = int(needed.quantile(0.95).ceil())
    return {
        "seconds": took,
        "missed": len(found.missed),
        "mean_pairs": float(found.n_pairs.float().mean()),
        "fixed_pairs": fixed,
        "ratio": baseline * fixed * len(found) / took,
        "against": reference,
    }


def table(result: dict[str, Any]) -> str:
    names = [name for name in result["rows"] if name in PEERS]
    lines = [f"N = {result['pairs']} pairs, {result['rounds']} rounds"]
    lines += [f"{'':16}{'seconds':>9}" + "".join(f"{'× ' + name:>17}" for name in names) + "   error: max, L2, worst"]
    for name, row in result["rows"].items():
        error = row["error"]
        shown = "" if error is None else "{max_abs:.1e}, {relative:.1e}, {worst_channel:.1e}".format(**error)
        note = "" if row["share_timed"] == 1 else f"timed on 1 channel in {1 / row['share_timed']:.0f}, scaled"
        ratios = "".join(f"{row['ratios_to'][other]:>17.2f}" for other in names)
        lines.append(f"{name:16}{row['seconds']:>9.2f}{ratios}   {shown}{note}")
    return "\n".join(lines)


def write(result: dict[str, Any], out: Path | None) -> None:
    if out is None:
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, nargs="+", default=[16, 4, 1])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--biggan", action="store_true", help="BigGAN-deep-256 with random weights")
    parser.add_argument("--no-tolerance", action="store_true", help="leave out the row that takes minutes")
    parser.add_argument("--short", action="store_true", help="hooks alone, 2 pairs; exit 1 on a clear regression")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    gen = cp.load("dcgan-faces")
    if args.short:
        result = compare(gen, 2, 3, ["hooks"])
        result["roofline"] = roofline(gen, 2, result["rows"]["float32"]["seconds"])
        print(table(result))
        print("float32: {share:.2f} of the best convolution ({best_gflops:.0f} GFLOP/s)".format(**result["roofline"]))
        write(result, args.out)
        ratio = result["rows"]["float32"]["ratios_to"]["hooks"]
        sys.exit(0 if ratio >= SHORT_BAR else f"hybrids are {ratio:.2f}× as fast as with hooks; at least {SHORT_BAR}")
    names = [name for name, (_, library, _) in PEERS.items() if library is None or importlib.util.find_spec(library)]
    results: dict[str, Any] = {"machine": machine(gen.device), "tables": []}
    for pairs in args.pairs:
        found = compare(gen, pairs, args.rounds if pairs > 1 else 5, names)
        found["roofline"] = roofline(gen, pairs, found["rows"]["float32"]["seconds"])
        results["tables"].append(found)
        print(table(found))
        print("float32: {share:.2f} of the best convolution ({best_gflops:.0f} GFLOP/s)\n".format(**found["roofline"]))
    if importlib.util.find_spec("captum"):
        results["captum"] = captum_cost(gen)
        print("captum, one channel of main.5, one pair: {ratio:.0f} × the time of a hook\n".format(**results["captum"]))
    results["split"] = split.split_rows(gen)
    print(split.line(results["split"]) + "\n")
    results["ranks"] = ranks.ranks_row()
    print(ranks.line(results["ranks"]) + "\n")
    if not args.no_tolerance:
        name = "nnsight" if "nnsight" in names else "hooks"
        first = results["tables"][0]
        each = first["rows"][name]["seconds"] / first["pairs"] / sum(gen.layers[layer].channels for layer in LAYERS)
        results["tolerance"] = tolerance_row(gen, 0.1, name, each)
        print(
            "10 % maps of all channels: {seconds:.0f} s, {mean_pairs:.0f} pairs on average, {missed} missed; "
            "{ratio:.1f} × {against} at {fixed_pairs} pairs (its time above, scaled)\n".format(**results["tolerance"])
        )
    if args.biggan:
        from biggan import biggan_rows

        results["biggan"] = biggan_rows()
    write(results, args.out)


if __name__ == "__main__":
    main()
