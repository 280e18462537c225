"""How the cost of influence maps grows: with pairs, channels, image size, depth and ranks; on paper to 64 machines.

    python benchmarks/scaling.py                  every row that is not in the file yet; some minutes
    python benchmarks/scaling.py --only strong    rows whose name holds this, anew
    python benchmarks/scaling.py --short          small ones, in half a minute, of which nothing is kept
    python benchmarks/scaling.py --page docs/scaling.md
                                                  write the tables into the page, and the figure beside it

Every process has one thread. Ranks are processes of gloo on this machine, on cores of their own where there are some;
calls are timed between barriers, without starting, importing and loading, which are a part of their own. Numbers of
ranks take turns in every round, and ratios are medians over rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import ceil
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import kept
import torch
import torch.distributed as dist
from pages import markdown, write_into
from ranks import started
from torch import Tensor, nn

import counterfactual_probe as cp

HERE = Path(__file__).resolve().parent
MEASURED = HERE / "measured" / "scaling.json"
FIGURE = HERE.parent / "docs" / "images" / "scaling-ranks.svg"
PAIRS, UNITS, EXCHANGED = 4, 960, 2**25  # pairs of each call, channels of dcgan-faces, bytes of the exchange
PAPER_PAIRS, PAPER_RANKS = 4096, (1, 2, 4, 8, 16, 32, 64)
_FIRST_CORE = "FIRST_CORE"
AXES: dict[str, tuple[int, ...]] = {
    "pairs": (8, 16, 32, 64),
    "channels": (16, 32, 64, 128),
    "size": (16, 32, 64, 128),
    "depth": (4, 8, 16, 32),
}
DEFAULTS = {"pairs": 8, "channels": 32, "size": 32, "depth": 8}


class Stack(nn.Module):
    """Convolutions of equal width and size, after a layer of 128 channels."""

    def __init__(self, size: int, depth: int, width: int = 16) -> None:
        super().__init__()
        self.size, self.layer, self.narrow = size, nn.ReLU(), nn.Conv2d(128, width, 1)
        convolutions = [nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU()) for _ in range(depth)]
        self.stack, self.image = nn.Sequential(*convolutions), nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        h = self.narrow(self.layer(z[:, :, None, None]))
        images: Tensor = self.image(self.stack(nn.functional.interpolate(h, size=(self.size, self.size))))
        return images


def axis_row(axis: str, values: tuple[int, ...], rounds: int) -> dict[str, Any]:
    """Seconds of maps at each value of one axis, in turns; the others as ``DEFAULTS`` says."""
    calls: list[Callable[[], Any]] = []
    for value in values:
        at = DEFAULTS | {axis: value}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module = Stack(at["size"], at["depth"]).eval()
        gen = cp.wrap(module, lambda n, rng: torch.randn(n, 128, generator=rng))
        units = [[unit] for unit in range(at["channels"])]
        maps_of = partial(cp.InfluenceMap(gen, "layer").attribute, n_pairs=at["pairs"], units=units)
        maps_of()  # records the program
        calls.append(maps_of)
    seconds: list[list[float]] = [[] for _ in values]
    for _ in range(rounds):
        for taken, call in zip(seconds, calls, strict=True):
            start = time.perf_counter()
            found = call()
            taken.append(time.perf_counter() - start)
    return {"values": list(values), "seconds": list(map(median, seconds)), "executor": found.provenance["executor"]}


def work(pairs: int, began: float) -> None:
    """The work of each rank; rank 0 prints what the parts took."""
    rank = int(os.environ["RANK"])
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[(rank + int(os.environ.get(_FIRST_CORE, "0"))) % len(cores)]})
    gen = cp.load("dcgan-faces")
    probe = cp.InfluenceMap(gen, list(gen.layers))
    some = [{name: (unit,)} for name, info in gen.layers.items() for unit in range(0, info.channels, 15)]
    ready = time.time() - began
    told: dict[str, Any] = {"threads": torch.get_num_threads()}
    probe.attribute(n_pairs=1, seed=0)  # a warm-up, which also creates the process group
    before = time.process_time()
    seconds, maps = between_barriers(lambda: probe.attribute(n_pairs=pairs, seed=0))
    spent = torch.tensor([time.process_time() - before])
    of_all = [torch.empty_like(spent) for _ in range(dist.get_world_size())]
    dist.all_gather(of_all, spent)
    told["busiest"] = max(map(float, of_all))  # processor time of the rank that has most to do
    told |= {"start": ready, "call": seconds, "ranks": maps.provenance["ranks"], "units": len(maps)}
    if dist.get_world_size() == 1:
        told["few units"] = [len(some), between_barriers(lambda: probe.attribute(n_pairs=pairs, units=some))[0]]
    sent = torch.zeros(EXCHANGED // 4 // dist.get_world_size())
    parts = [torch.empty_like(sent) for _ in range(dist.get_world_size())]
    told["exchange"] = [EXCHANGED, between_barriers(lambda: dist.all_gather(parts, sent))[0]]
    if rank == 0:
        with TemporaryDirectory() as folder:
            start = time.perf_counter()
            size = maps.save(Path(folder) / "maps.safetensors").stat().st_size
            told["save"] = [size, time.perf_counter() - start]
        print(json.dumps(told))


def between_barriers(call: Callable[[], Any]) -> tuple[float, Any]:
    dist.barrier()
    start = time.perf_counter()
    found = call()
    dist.barrier()
    return time.perf_counter() - start, found


def launched(ranks: int, pairs: int, first_core: int = 0) -> dict[str, Any]:
    worker = ["--worker", str(pairs), "--began", repr(time.time())]
    return started(__file__, ranks, worker, {_FIRST_CORE: str(first_core)})


def ranks_row(of: dict[int, int], rounds: int) -> dict[str, Any]:
    """What ranks report, numbers of ranks taking turns; ``of`` has the pairs for each number."""
    told: dict[str, list[dict[str, Any]]] = {str(ranks): [] for ranks in of}
    for _ in range(rounds):
        for ranks, pairs in of.items():
            told[str(ranks)].append({"pairs": pairs, **launched(ranks, pairs)})
            print(f"  {ranks} ranks: {told[str(ranks)][-1]}", file=sys.stderr)
    return {"cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(), "told": told}


def machine_row(pairs: int, rounds: int) -> dict[str, Any]:
    """The same call of one rank alone, and of two that know nothing of each other at once: what the machine allows."""
    alone, beside = [], []
    for _ in range(rounds):
        alone.append(launched(1, pairs)["call"])
        with ThreadPoolExecutor(2) as pool:
            both = list(pool.map(lambda core: launched(1, pairs, core)["call"], (0, 1)))
        beside.append(max(both))
        print(f"  alone {alone[-1]:.2f} s, beside another {both}", file=sys.stderr)
    return {"pairs": pairs, "alone": alone, "beside": beside}


def rows(short: bool) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """The name of each row, and what measures it."""
    for axis, values in AXES.items():
        yield axis, partial(axis_row, axis, values[:2] if short else values, 1 if short else 3)
    pairs = 1 if short else PAIRS
    yield "strong", partial(ranks_row, {1: pairs, 2: pairs}, 1 if short else 3)
    if not short:
        yield "side by side", partial(machine_row, 2 * pairs, 3)
        yield "long call", partial(ranks_row, {1: 4 * pairs, 2: 4 * pairs}, 3)
        yield "strong, more ranks than cores", partial(ranks_row, {1: pairs, 4: pairs}, 2)
        yield "weak", partial(ranks_row, {1: pairs, 2: 2 * pairs, 4: 4 * pairs}, 1)


def slope(xs: list[float], ys: list[float]) -> float:
    """Of log y against log x, by least squares."""
    x, y = (torch.tensor(values, dtype=torch.float64).log() for values in (xs, ys))
    x = x - x.mean()
    return float((x * y).sum() / (x * x).sum())


def speedups(row: dict[str, Any], ranks: int, of: str = "call") -> list[float]:
    """Of each round: seconds of one rank divided by those of several, for as many pairs each."""
    one, several = row["told"]["1"], row["told"][str(ranks)]
    return [(a[of] / a["pairs"]) / (b[of] / b["pairs"]) for a, b in zip(one, several, strict=True)]


def parts(result: dict[str, Any]) -> dict[str, float]:
    """What the prediction is made of, in seconds: medians over all runs on one rank, of the exchange on two."""
    alone, two = result["rows"]["strong"]["told"]["1"], result["rows"]["strong"]["told"]["2"]
    hybrid, clean = [], []
    for told in alone:
        (some, few), pairs = told["few units"], told["pairs"]
        hybrid.append((told["call"] - few) / pairs / (told["units"] - some))
        clean.append(few / pairs - some * hybrid[-1])
    return {
        "start": median(told["start"] for told in alone),
        "hybrid": median(hybrid),
        "clean": max(0.0, median(clean)),
        # A rank of two receives half of what is exchanged.
        "byte": median(told["exchange"][1] / (told["exchange"][0] / 2) for told in two),
        "saved byte": median(told["save"][1] / told["save"][0] for told in alone),
    }


def predicted(of: dict[str, float], ranks: int, pairs: int, units: int = UNITS, pixels: int = 64 * 64) -> float:
    """Seconds of a run whose ranks share the unit sets, as they do from 8 sets a rank on: T(R) of the page."""
    size = 2 * 4 * units * pixels  # maps and standard errors
    computed = pairs * (of["clean"] + ceil(units / ranks) * of["hybrid"])
    return of["start"] + computed + size * (ranks - 1) / ranks * of["byte"] + size * of["saved byte"]


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Of docs/scaling.md, by their places."""
    measured, of = result["rows"], parts(result)
    axes = []
    for axis in AXES:
        row = measured[axis]
        shown = ", ".join(
            f"{value}: {1e3 * seconds:.0f} ms" for value, seconds in zip(row["values"], row["seconds"], strict=True)
        )
        axes.append((axis, shown, f"{slope(row['values'], row['seconds']):.2f}"))
    shared = []
    for name, ranks in (
        ("strong", 2),
        ("long call", 2),
        ("strong, more ranks than cores", 4),
        ("weak", 2),
        ("weak", 4),
    ):
        row = measured[name]
        each, cores = speedups(row, ranks), row["cores"]
        pairs = [row["told"][one][0]["pairs"] for one in ("1", str(ranks))]
        by_processor = f"{median(speedups(row, ranks, 'busiest')):.2f} ×"
        spread = f" ({min(each):.2f}–{max(each):.2f})" if len(each) > 1 else ""
        what = f"{pairs[0]} pairs on both" if pairs[0] == pairs[1] else f"{pairs[0]} pairs, and {pairs[1]} on {ranks}"
        shared.append((ranks, what, f"{median(each):.2f} ×{spread}", by_processor, f"{min(ranks, cores)} ×"))
    one = predicted(of, 1, PAPER_PAIRS)
    paper = [
        (ranks, f"{seconds / 60:,.1f} min", f"{one / seconds:.1f} ×", f"{one / seconds / ranks:.0%}")
        for ranks in PAPER_RANKS
        for seconds in (predicted(of, ranks, PAPER_PAIRS),)
    ]
    beside = measured["side by side"]
    least = [2 * one / two for one, two in zip(beside["alone"], beside["beside"], strict=True)]
    shared.append(
        (
            2,
            "two runs that know nothing of each other",
            f"{median(least):.2f} × ({min(least):.2f}–{max(least):.2f})",
            "–",
            "2 ×",
        )
    )
    names = {
        "start": ("S", "start of a process, with imports and the generator", f"{of['start']:.1f} s"),
        "hybrid": ("h", "a hybrid", f"{1e3 * of['hybrid']:.2f} ms"),
        "clean": ("c", "the two clean runs of a pair", f"{1e3 * of['clean']:.1f} ms"),
        "byte": ("x", "exchange, of what a rank receives", f"{1e9 * of['byte']:.2f} s/GB"),
        "saved byte": ("w", "saving the maps", f"{1e9 * of['saved byte']:.2f} s/GB"),
    }
    return {
        "scaling axes": markdown(["axis", "value: time of a call", "slope"], axes),
        "scaling ranks": markdown(
            ["ranks", "work", "as fast as one, pair by pair", "by processor time", "cores that there are"], shared
        ),
        "scaling parts": markdown(["part", "what", "measured"], list(names.values())),
        "scaling paper": markdown(["machines", "T", "faster", "efficiency"], paper),
    }


def draw(result: dict[str, Any], file: Path) -> None:
    """Speed-ups: the measured ones, and the predicted one of the large job."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    measured, of = result["rows"], parts(result)
    figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
    axes.loglog(PAPER_RANKS, PAPER_RANKS, ":", color="#99a8b2", label="as many times as fast")
    one = predicted(of, 1, PAPER_PAIRS)
    speeds = [one / predicted(of, ranks, PAPER_PAIRS) for ranks in PAPER_RANKS]
    axes.loglog(PAPER_RANKS, speeds, "-", color="#1f6f8b", label=f"on paper, {PAPER_PAIRS} pairs")
    axes.loglog(
        [1, 2], [1, median(speedups(measured["long call"], 2))], "o", color="#c0562f", label="measured, 2 cores"
    )
    axes.set(xlabel="ranks", ylabel="times as fast as one")
    axes.set_xticks(PAPER_RANKS, list(map(str, PAPER_RANKS)))
    axes.set_yticks(PAPER_RANKS, list(map(str, PAPER_RANKS)))
    axes.minorticks_off()
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    with mpl.rc_context({"svg.hashsalt": "scaling", "svg.fonttype": "path"}):
        figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kept.add_options(parser, MEASURED, short="small ones, of which nothing is kept")
    parser.add_argument("--worker", type=int, metavar="PAIRS", help="run as one of the ranks (used by torchrun)")
    parser.add_argument("--began", type=float, help="when the ranks were started (used by torchrun)")
    args = parser.parse_args()
    if args.worker:
        work(args.worker, args.began)
        return
    result = kept.opened(args)
    if args.page is not None:
        write_into(args.page, tables(result))
        draw(result, FIGURE)
        return
    torch.set_num_threads(1)
    kept.measure(result, rows(args.short), args)


if __name__ == "__main__":
    main()
