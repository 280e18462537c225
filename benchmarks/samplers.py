"""Influence maps of a sampler's calls beside plain hooks: of all calls at once, of one in the middle, of the last ones.

    python benchmarks/samplers.py                 flow-faces, 8 steps, its bottleneck: 128 channels, 16 pairs
    python benchmarks/samplers.py --short         the same ratios from fewer pairs, in half a minute
    python benchmarks/samplers.py --threads 1 --channels 16 --out benchmarks/measured/samplers.json
    python benchmarks/samplers.py --out benchmarks/measured/samplers.json --page docs/samplers.md
                                                  what was measured, and that written into the page
    python benchmarks/samplers.py --large --out benchmarks/measured/sampler_memory.json
                                                  the memory of a U-Net of 100 million parameters, 50 steps, 64×64

Both take turns in every round, and the median ratio of their times is what matters. What it depends on stays as it is
in the short form: we map all channels, for which clean runs are paid once, of two pairs; hooks run 16 pairs in a
forward, on some channels, of which all would take as many times as long.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import torch
from live import LiveBytes
from pages import markdown, write_into
from throughput import machine, seconds_of
from torch import Tensor, nn

import counterfactual_probe as cp

GENERATOR, LAYER = "flow-faces", "velocity.middle"
PAIRS = 16  # in a forward of hooks, and of ours in the long form
T = TypeVar("T")
EXACT = 2e-5  # of images in float32
LARGE_BOUNDS = (500e6, 64e6)  # bytes beside the weights, at the first call and at later ones


class Hooks:
    """Maps of single channels by plain hooks: clean forwards of base and source, and a forward for each channel.

    Args:
        calls: of the layer, which are set; the first is 1.
    """

    def __init__(self, gen: cp.GeneratorAdapter, calls: range) -> None:
        self.gen, self.calls = gen, calls
        self._source: dict[int, Tensor] = {}

    @torch.inference_mode()
    def clean(self, z1: Tensor, z2: Tensor) -> Tensor:
        """The base's images; the source's activations are kept."""

        def keep(call: int, output: Tensor) -> None:
            self._source[call] = output.clone()

        self._run(z2, keep)
        images: Tensor = self.gen.module(z1)
        return images

    @torch.inference_mode()
    def maps(self, z1: Tensor, base: Tensor, channels: list[int]) -> Tensor:
        """(channels, H, W): one batch of all pairs for each channel."""

        def swap(channel: int, call: int, output: Tensor) -> Tensor:
            output = output.clone()
            output[:, channel] = self._source[call][:, channel]
            return output

        found = [(self._run(z1, partial(swap, channel)) - base).abs().mean((0, 1)) for channel in channels]
        return torch.stack(found)

    def _run(self, z: Tensor, at_call: Callable[[int, Tensor], Tensor | None]) -> Tensor:
        ran = 0

        def hook(_module: nn.Module, _given: Any, output: Tensor) -> Tensor | None:
            nonlocal ran
            ran += 1
            return at_call(ran, output) if ran in self.calls else None

        handle = self.gen.module.get_submodule(LAYER).register_forward_hook(hook)
        try:
            images: Tensor = self.gen.module(z)
        finally:
            handle.remove()
        return images


def compared(
    gen: cp.GeneratorAdapter, address: str, calls: range, *, pairs: int, of_hooks: int, rounds: int
) -> dict[str, Any]:
    """Medians over rounds in which both take turns; hooks time so many of the channels, and are scaled to all."""
    z1: Any = gen.sample(PAIRS, seed=0)
    z2: Any = gen.sample(PAIRS, seed=1)
    count = gen.layers[f"{LAYER}#1"].channels
    channels = list(range(0, count, count // of_hooks))[:of_hooks]
    probe, plain = cp.InfluenceMap(gen, address), Hooks(gen, calls)
    units = [[channel] for channel in range(count)]
    few = probe.attribute(z1[:4], z2[:4], units=[[channel] for channel in channels])  # records the program, too
    expected = plain.maps(z1[:4], plain.clean(z1[:4], z2[:4]), channels)
    taken: dict[str, list[tuple[float, ...]]] = {"ours": [], "hooks": []}
    for _ in range(rounds):
        base, clean = timed(lambda: plain.clean(z1, z2), gen.device)
        _, swapped = timed(partial(plain.maps, z1, base, channels), gen.device)
        found, ours = timed(lambda: probe.attribute(z1[:pairs], z2[:pairs], units=units), gen.device)
        taken["hooks"].append(
            tuple((a + b * count / of_hooks) / PAIRS / count for a, b in zip(clean, swapped, strict=True))
        )
        taken["ours"].append(tuple(a / pairs / count for a in ours))
    wall, cpu = ([b[i] / a[i] for a, b in zip(taken["ours"], taken["hooks"], strict=True)] for i in (0, 1))
    return {
        "layer": address,
        "channels": {"ours": count, "hooks": of_hooks},
        "pairs": {"ours": pairs, "hooks": PAIRS},
        "seconds": {name: median(one for one, _ in rows) for name, rows in taken.items()},
        "ratio": median(wall),
        "ratio_range": [min(wall), max(wall)],
        "processor_time_ratio": median(cpu),
        "error": float((few.maps - expected).abs().max()),
        "influence": float(expected.max()),
        "executor": found.provenance["executor"],
    }


def timed(work: Callable[[], T], device: torch.device) -> tuple[T, tuple[float, float]]:
    """What it returns, and how many seconds it took: by the clock, and of processors' time."""
    done: list[T] = []
    before = time.process_time()
    seconds = seconds_of(lambda: done.append(work()), device)
    return done[0], (seconds, time.process_time() - before)


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
    lines = [f"{'a hybrid of':24}{'ours':>10}{'hooks':>11}{'ratio':>8}   range       by processor time   largest error"]
    for row in rows:
        low, high = row["ratio_range"]
        ours, hooks = (1e3 * row["seconds"][name] for name in ("ours", "hooks"))
        lines.append(
            f"{row['layer']:24}{ours:>7.2f} ms{hooks:>8.2f} ms{row['ratio']:>8.2f}   {low:.2f}–{high:.2f}   "
            f"{row['processor_time_ratio']:>17.2f}   {row['error']:.1g} of {row['influence']:.2g}  ({row['executor']})"
        )
    return "\n".join(lines)


def page_table(result: dict[str, Any]) -> str:
    """What docs/samplers.md shows: ratios by processor time, which other work on the machine disturbs least."""
    rows = [(row["layer"], f"{row['processor_time_ratio']:.1f}") for row in result["rows"]]
    return markdown(["calls of the bottleneck", "times as fast as hooks"], rows)


def write(result: dict[str, Any], out: Path | None) -> None:
    if out is None:
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, help=f"pairs of ours ({PAIRS}; short form: 2)")
    parser.add_argument("--channels", type=int, help="channels that hooks are timed on (128; short form: 4)")
    parser.add_argument("--rounds", type=int, help="rounds (3; short form: 1)")
    parser.add_argument("--threads", type=int, help="torch's threads; by default torch's own choice")
    parser.add_argument("--short", action="store_true", help="half a minute; fails where maps are wrong")
    parser.add_argument("--large", action="store_true", help="the memory of a large sampler alone; some minutes")
    parser.add_argument("--out", type=Path, help="a JSON file for the results")
    parser.add_argument("--page", type=Path, help="write the table of the results in --out into this page instead")
    args = parser.parse_args()
    if args.page is not None:
        write_into(args.page, {"samplers": page_table(json.loads(args.out.read_text(encoding="utf-8")))})
        return
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.large:
        found: dict[str, Any] = {"machine": machine(torch.device("cpu")), **large()}
        print(json.dumps(found, indent=2))
        write(found, args.out)
        if any(peak > bound for peak, bound in zip(found["peak_bytes"].values(), LARGE_BOUNDS, strict=True)):
            raise SystemExit(f"more than {LARGE_BOUNDS} bytes are alive at the peaks")
        return
    pairs, channels = args.pairs or (2 if args.short else PAIRS), args.channels or (4 if args.short else 128)
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
        rows.append(compared(gen, address, calls, pairs=pairs, of_hooks=channels, rounds=rounds))
    print(table(rows))
    result: dict[str, Any] = {"generator": GENERATOR, "rounds": rounds, "machine": machine(gen.device), "rows": rows}
    write(result, args.out)
    if slow := [row["layer"] for row in rows if row["executor"] != "prepared"]:
        raise SystemExit(f"the fast path was not taken for {', '.join(slow)}")
    if wrong := [row["layer"] for row in rows if not row["error"] <= EXACT]:
        raise SystemExit(f"maps of {', '.join(wrong)} differ from plain hooks by more than {EXACT}")


if __name__ == "__main__":
    main()
