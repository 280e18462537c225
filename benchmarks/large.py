"""Memory and time of large generators and long chains: that working memory is flat, and that time grows as FLOPs do.

    python benchmarks/large.py                    every row that is not in the file yet; about fifteen minutes on a core
    python benchmarks/large.py --short            the same of generators of a few channels, in a minute
    python benchmarks/large.py --only flow        rows whose name holds this
    python benchmarks/large.py --page docs/scaling.md
                                                  write the tables into the page, and the figure beside it

Both fail where working memory grows. Bytes are those of tensors, counted as they are made and freed, beside the weights
and beside the maps that are returned: the same on every machine. Weights are random, which changes neither.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import kept
import torch
from gpu.generators import StyleGAN2, seeded
from live import LiveBytes
from pages import markdown, write_into
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

import counterfactual_probe as cp

HERE = Path(__file__).resolve().parent
MEASURED = HERE / "measured" / "large.json"
FIGURE = HERE.parent / "docs" / "images" / "large-time.svg"
FLAT = 1.05  # of peaks that should be equal
# The bound: working memory in later calls, as a multiple of the largest activation of one image.
BOUND = 16.0
HYBRIDS = 2  # in a batch
SIZES, SHORT_SIZES = (64, 128, 256, 512, 1024), (16, 32, 64)


class Subject(NamedTuple):
    """A large generator, and the layer whose maps are made.

    Attributes:
        sampled: conditions of its latents.
    """

    name: str
    make: Callable[[], cp.GeneratorAdapter]
    layer: str
    sampled: tuple[tuple[str, Any], ...] = ()


def stylegan2(size: int, width: int) -> cp.GeneratorAdapter:
    module = seeded(lambda: StyleGAN2(size, width)).eval().requires_grad_(False)
    return cp.wrap(module, lambda n, rng: torch.randn(n, width, generator=rng), name=f"StyleGAN2 {size}×{size}")


def biggan(config: str) -> cp.GeneratorAdapter:
    from counterfactual_probe.adapters.biggan_deep import random_biggan_deep

    made: cp.GeneratorAdapter = random_biggan_deep(config)
    return made


def chain(steps: int, widths: tuple[int, ...], size: int) -> cp.GeneratorAdapter:
    from counterfactual_probe.adapters.flow import UNet, flow

    network = seeded(lambda: UNet(widths))
    made: cp.GeneratorAdapter = flow(network.state_dict(), image_size=size, steps=steps)
    return made


def subjects(short: bool) -> list[Subject]:
    if short:
        return [
            Subject("StyleGAN2 64×64, narrow", partial(stylegan2, 64, 32), "blocks.2.second"),
            Subject("BigGAN-deep, small", partial(biggan, "small"), "generator.layers.1", (("classes", 1),)),
        ]
    return [
        Subject("StyleGAN2 1024×1024", partial(stylegan2, 1024, 512), "blocks.7.second"),
        Subject("BigGAN-deep-512", partial(biggan, "biggan-deep-512"), "generator.layers.14", (("classes", 1),)),
    ]


def peak(gen: cp.GeneratorAdapter, layer: str, pairs: int, units: int, sampled: dict[str, Any]) -> dict[str, Any]:
    """Bytes alive at the peak of a call, beside the weights and the maps that it returns, and how long it took."""
    z1, z2 = (gen.sample(pairs, seed=seed, **sampled) for seed in (0, 1))
    with LiveBytes() as live:
        start = time.perf_counter()
        probe = cp.InfluenceMap(gen, layer)
        maps = probe.attribute(z1, z2, units=[[unit] for unit in range(units)], hybrids_per_eval=HYBRIDS)
        seconds = time.perf_counter() - start
    arrays = [getattr(maps, name).nbytes for name in ("maps", "standard_error")]
    return {
        "bytes": live.peak - sum(arrays),
        "seconds": seconds,
        "executor": maps.provenance["executor"],
        "hybrids_per_eval": maps.provenance["hybrids_per_eval"],
    }


def memory_row(subject: Subject, pairs: int, units: int) -> dict[str, Any]:
    """Peaks of few pairs of few units, of three times as many pairs, and of three times as many units."""
    gen, sampled = subject.make(), dict(subject.sampled)
    weights = sum(value.nbytes for value in (*gen.module.parameters(), *gen.module.buffers()))
    row: dict[str, Any] = {"name": subject.name, "layer": subject.layer, "weights_bytes": weights}
    row["channels"] = gen.layers[subject.layer].channels
    row["pairs"], row["units"] = [pairs, 3 * pairs], [units, 3 * units]
    row["largest_activation_bytes"] = largest_activation(gen, sampled)
    for name, (many, several) in {
        "first call": (pairs, units),
        "few": (pairs, units),
        "more pairs": (3 * pairs, units),
        "more units": (pairs, 3 * units),
    }.items():
        row[name] = peak(gen, subject.layer, many, several, sampled)
        print(f"  {name}: {row[name]}", file=sys.stderr)
    return row


class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Inside, notes the bytes of the largest tensor that an operation makes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes: int = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor):
                self.bytes = max(self.bytes, leaf.numel() * leaf.element_size())
        return made


def largest_activation(gen: cp.GeneratorAdapter, sampled: dict[str, Any]) -> int:
    """Bytes of the largest tensor that the forward of one image makes."""
    with torch.no_grad(), Largest() as largest:
        gen(gen.sample(1, seed=0, **sampled))
    found: int = largest.bytes
    return found


def steps_row(steps: int, widths: tuple[int, ...], size: int) -> dict[str, Any]:
    """A chain: the peaks of maps of its first call, and of the fifth from the end."""
    gen = chain(steps, widths, size)
    row: dict[str, Any] = {"steps": steps, "flops": flops(gen)}
    for name, call in (("first", 1), ("late", steps - 4)):
        layer = f"velocity.middle#{call}"
        peak(gen, layer, 2, 6, {})
        row[name] = {"layer": layer, **peak(gen, layer, 2, 6, {})}
    return row


def flops(gen: cp.GeneratorAdapter) -> int:
    """Of the forward of one image: a multiplication and an addition are two."""
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        gen(gen.sample(1, seed=0))
    total: int = counted.get_total_flops()
    return total


def size_row(size: int, width: int, hybrids: int) -> dict[str, Any]:
    """Seconds of a hybrid of the 8×8 layer of a StyleGAN2 of this size, and FLOPs of its forward."""
    gen = stylegan2(size, width)
    probe = cp.InfluenceMap(gen, "blocks.1.second")
    units = [[unit] for unit in range(hybrids)]
    z1: Any = gen.sample(2, seed=0)
    z2: Any = gen.sample(2, seed=1)
    probe.attribute(z1[:1], z2[:1], units=units)  # records the program
    taken: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(3):
        for pairs, seconds in taken.items():
            start = time.perf_counter()
            maps = probe.attribute(z1[:pairs], z2[:pairs], units=units)
            seconds.append(time.perf_counter() - start)
    return {
        "size": size,
        "width": width,
        "flops": flops(gen),
        "seconds": (median(taken[2]) - median(taken[1])) / hybrids,  # what a call takes once is in both
        "executor": maps.provenance["executor"],
    }


def rows(short: bool) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """The name of each row, and what measures it."""
    widths, size = ((4, 8, 8), 16) if short else ((32, 64, 128, 128), 32)
    for steps in (5, 10) if short else (10, 25, 50):
        yield f"steps, flow of {steps}", partial(steps_row, steps, widths, size)
    for side in SHORT_SIZES if short else SIZES:
        yield f"size, {side}", partial(size_row, side, 16 if short else 128, 16)
    for subject in subjects(short):
        yield f"memory, {subject.name}", partial(memory_row, subject, 2, 6)


def slope(points: list[tuple[float, float]]) -> tuple[float, float]:
    """The slope of log y against log x, and its standard error (least squares)."""
    from scipy.stats import linregress

    x, y = torch.tensor(points, dtype=torch.float64).log().T
    fit = linregress(x.numpy(), y.numpy())
    return float(fit.slope), float(fit.stderr)


def growing(measured: dict[str, Any]) -> list[str]:
    """The rows whose working memory grows, or is above the bound."""
    found = []
    for name, row in measured.items():
        if name.startswith("memory"):
            few = row["few"]["bytes"]
            if max(row["more pairs"]["bytes"], row["more units"]["bytes"]) > FLAT * few:
                found.append(name)
    for call in ("first", "late"):
        chains = [row[call]["bytes"] for name, row in measured.items() if name.startswith("steps")]
        if chains and max(chains) > FLAT * min(chains):
            found.append(f"chains at the {call} call")
    return found


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Of docs/scaling.md, by their places."""
    measured = result["rows"]

    def megabytes(size: float) -> str:
        return f"{size / 1e6:,.0f} MB" if size >= 1e7 else f"{size / 1e6:.1f} MB"

    memory = []
    for name, row in measured.items():
        if name.startswith("memory"):
            peaks = [megabytes(row[one]["bytes"]) for one in ("first call", "few", "more pairs", "more units")]
            times = f"{row['few']['bytes'] / row['largest_activation_bytes']:.1f}"
            memory.append((row["name"], f"`{row['layer']}`", megabytes(row["weights_bytes"]), *peaks, times))
    chains = [
        (row["steps"], *(megabytes(row[call]["bytes"]) for call in ("first", "late")), f"{row['flops'] / 1e9:.2f}")
        for name, row in measured.items()
        if name.startswith("steps")
    ]
    sizes = [
        (f"{row['size']}×{row['size']}", f"{row['flops'] / 1e9:.2f}", f"{1e3 * row['seconds']:.1f} ms")
        for name, row in measured.items()
        if name.startswith("size")
    ]
    pairs = next(row for name, row in measured.items() if name.startswith("memory"))
    (few, more), (units, several) = pairs["pairs"], pairs["units"]
    head = ["generator", "layer", "weights", "first call", f"{few} pairs of {units} channels"]
    head += [f"{more} pairs", f"{several} channels", "of the largest activation"]
    return {
        "large memory": markdown(head, memory),
        "long chains": markdown(
            ["steps", "maps of the first call", "of the fifth from the end", "GFLOP of an image"], chains
        ),
        "image sizes": markdown(["image", "GFLOP of an image", "a hybrid"], sizes),
    }


def points(result: dict[str, Any]) -> list[tuple[float, float]]:
    return [(row["flops"], row["seconds"]) for name, row in result["rows"].items() if name.startswith("size")]


def draw(result: dict[str, Any], file: Path) -> None:
    """Seconds of a hybrid against FLOPs of an image, with the fitted slope."""
    import matplotlib as mpl
    import numpy as np

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    x, y = np.array(points(result)).T
    fitted, error = slope(points(result))
    figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
    middle = np.exp(np.log(x).mean()), np.exp(np.log(y).mean())
    axes.loglog(x / 1e9, y * 1e3, "o", color="#1f6f8b")
    axes.loglog(x / 1e9, middle[1] * (x / middle[0]) ** fitted * 1e3, "-", color="#99a8b2", zorder=0)
    sizes = [row["size"] for name, row in result["rows"].items() if name.startswith("size")]
    for size, one, other in zip(sizes, x / 1e9, y * 1e3, strict=True):
        axes.annotate(f"{size}²", (one, other), textcoords="offset points", xytext=(6, -9), fontsize=8)
    for axis, ticks in ((axes.xaxis, (3, 5, 10, 20)), (axes.yaxis, (20, 50, 100, 200))):
        axis.set_ticks(ticks, list(map(str, ticks)))
    axes.minorticks_off()
    axes.set(xlabel="GFLOP of an image", ylabel="ms of a hybrid", title=f"slope {fitted:.2f} ± {error:.2f}")
    axes.spines[["top", "right"]].set_visible(False)
    with mpl.rc_context({"svg.hashsalt": "large", "svg.fonttype": "path"}):
        figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kept.add_options(parser, MEASURED, short="narrow generators, nothing is kept")
    args = parser.parse_args()
    result = kept.opened(args)
    if args.page is not None:
        write_into(args.page, tables(result))
        draw(result, FIGURE)
        return
    kept.measure(result, rows(args.short), args)
    for table in tables(result).values():
        print(f"{table}\n")
    if len(points(result)) > 2:
        print("slope of seconds against FLOPs: {:.2f} ± {:.2f}".format(*slope(points(result))))
    if grown := growing(result["rows"]):
        raise SystemExit(f"working memory grows in {', '.join(grown)}")


if __name__ == "__main__":
    main()
