"""Influence maps of a sampler's calls beside plain hooks: of all calls at once, of one in the middle, of the last ones.

    python benchmarks/samplers.py                 flow-faces, 8 steps, its bottleneck, 16 pairs
    python benchmarks/samplers.py --short         a smoke test of the same
    python benchmarks/samplers.py --large         the memory of a U-Net of 100 million parameters, 50 steps, 64×64

Both take turns in every round on the same channels and pairs, and the median ratio of their times is what matters.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from live import LiveBytes
from throughput import machine, seconds_of
from torch import Tensor, nn

import counterfactual_probe as cp

GENERATOR, LAYER = "flow-faces", "velocity.middle"
EXACT = 2e-5  # of images in float32
LARGE_BOUNDS = (500e6, 64e6)  # bytes beside the weights, at the first call and at later ones


def hooks(gen: cp.GeneratorAdapter, calls: range, z1: Any, z2: Any, channels: list[int]) -> Tensor:
    """The maps of single channels by plain hooks, (channels, H, W): one batch of all pairs for each channel."""
    part = gen.module.get_submodule(LAYER)

    def run(z: Any, at_call: Callable[[int, Tensor], Tensor | None]) -> Tensor:
        ran = 0

        def hook(_module: nn.Module, _given: Any, output: Tensor) -> Tensor | None:
            nonlocal ran
            ran += 1
            return at_call(ran, output) if ran in calls else None

        handle = part.register_forward_hook(hook)
        try:
            images: Tensor = gen.module(z)
        finally:
            handle.remove()
        return images

    source: dict[int, Tensor] = {}

    def keep(call: int, output: Tensor) -> None:
        source[call] = output.clone()

    def swap(channel: int, call: int, output: Tensor) -> Tensor:
        output = output.clone()
        output[:, channel] = source[call][:, channel]
        return output

    with torch.inference_mode():
        run(z2, keep)
        base: Tensor = gen.module(z1)
        maps = [(run(z1, partial(swap, channel)) - base).abs().mean((0, 1)) for channel in channels]
    return torch.stack(maps)


def compared(
    gen: cp.GeneratorAdapter, address: str, calls: range, *, pairs: int, n: int, rounds: int
) -> dict[str, Any]:
    """Medians over rounds in which both take turns, after one round that counts for neither."""
    z1, z2 = gen.sample(pairs, seed=0), gen.sample(pairs, seed=1)
    count = gen.layers[f"{LAYER}#1"].channels
    channels = list(range(0, count, max(1, count // n)))[:n]
    probe = cp.InfluenceMap(gen, address)
    ours = partial(probe.attribute, z1, z2, units=[[channel] for channel in channels])
    theirs = partial(hooks, gen, calls, z1, z2, channels)
    found, expected = ours(), theirs()
    seconds: dict[str, list[float]] = {"ours": [], "hooks": []}
    for _ in range(rounds):
        seconds["ours"].append(seconds_of(ours, gen.device))
        seconds["hooks"].append(seconds_of(theirs, gen.device))
    ratios = [b / a for a, b in zip(seconds["ours"], seconds["hooks"], strict=True)]
    return {
        "layer": address,
        "channels": len(channels),
        "pairs": pairs,
        "seconds": {name: median(taken) for name, taken in seconds.items()},
        "ratio": median(ratios),
        "ratio_range": [min(ratios), max(ratios)],
        "error": float((found.maps - expected).abs().max()),
        "influence": float(expected.max()),
        "executor": found.provenance["executor"],
    }


def large(steps: int = 50) -> dict[str, Any]:
    """Memory at the peak of hybrids in a U-Net of 100 million parameters at 64×64, of random weights.

    Bytes of tensors that are made and alive, beside the network's own weights: of the first call, which records the
    program, and of a later one.
    """
    from counterfactual_probe.adapters.flow import UNet, flow

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = UNet((32, 64, 256, 512, 1536))
    gen = flow(network.state_dict(), image_size=64, steps=steps)
    weights = sum(value.numel() for value in network.parameters())
    layer = f"{LAYER}#{steps - steps // 10}"
    z1, z2 = gen.sample(2, seed=0), gen.sample(2, seed=1)
    probe, peaks = cp.InfluenceMap(gen, layer), []
    for _ in range(2):
        with LiveBytes() as live:
            maps = probe.attribute(z1, z2, units=[[channel] for channel in range(6)], hybrids_per_eval=6)
        peaks.append(live.peak)
    return {
        "parameters": weights,
        "steps": steps,
        "layer": layer,
        "weights_bytes": 4 * weights,
        "peak_bytes": {"first call": peaks[0], "later call": peaks[1]},
        "executor": maps.provenance["executor"],
    }


def table(rows: list[dict[str, Any]]) -> str:
    lines = [f"{'layer':24}{'ours':>9}{'hooks':>9}{'ratio':>8}   range       largest error"]
    for row in rows:
        low, high = row["ratio_range"]
        lines.append(
            f"{row['layer']:24}{row['seconds']['ours']:>7.2f} s{row['seconds']['hooks']:>7.2f} s{row['ratio']:>8.2f}   "
            f"{low:.2f}–{high:.2f}   {row['error']:.1g} of {row['influence']:.2g}  ({row['executor']})"
        )
    return "\n".join(lines)


def write(result: dict[str, Any], out: Path | None) -> None:
    if out is None:
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, help="pairs of latents (16; short form: 3)")
    parser.add_argument("--channels", type=int, help="channels of the layer, spread over all (all; short form: 4)")
    parser.add_argument("--rounds", type=int, help="rounds (3; short form: 1)")
    parser.add_argument("--threads", type=int, help="torch's threads; by default torch's own choice")
    parser.add_argument("--short", action="store_true", help="a smoke test, not a result; fails where maps are wrong")
    parser.add_argument("--large", action="store_true", help="the memory of a large sampler alone; some minutes")
    parser.add_argument("--out", type=Path, help="a JSON file for the results")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.large:
        found: dict[str, Any] = {"machine": machine(torch.device("cpu")), **large()}
        print(json.dumps(found, indent=2))
        write(found, args.out)
        if any(peak > bound for peak, bound in zip(found["peak_bytes"].values(), LARGE_BOUNDS, strict=True)):
            raise SystemExit(f"more than {LARGE_BOUNDS} bytes are alive at the peaks")
        return
    pairs, channels = args.pairs or (3 if args.short else 16), args.channels or (4 if args.short else 128)
    rounds = args.rounds or (1 if args.short else 3)
    gen = cp.load(GENERATOR)
    last = len(gen.calls(LAYER))
    middle, quarter = last // 2 + 1, last - last // 4 + 1
    cases = {
        f"{LAYER}#*": range(1, last + 1),
        f"{LAYER}#{middle}": range(middle, middle + 1),
        f"{LAYER}#{quarter}-{last}": range(quarter, last + 1),
    }
    rows = []
    for address, calls in cases.items():
        print(f"{address} …", file=sys.stderr)
        rows.append(compared(gen, address, calls, pairs=pairs, n=channels, rounds=rounds))
    print(table(rows))
    result: dict[str, Any] = {"generator": GENERATOR, "rounds": rounds, "machine": machine(gen.device), "rows": rows}
    write(result, args.out)
    if slow := [row["layer"] for row in rows if row["executor"] != "prepared"]:
        raise SystemExit(f"the fast path was not taken for {', '.join(slow)}")
    if wrong := [row["layer"] for row in rows if not row["error"] <= EXACT]:
        raise SystemExit(f"maps of {', '.join(wrong)} differ from plain hooks by more than {EXACT}")


if __name__ == "__main__":
    main()
