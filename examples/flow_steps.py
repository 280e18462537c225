"""What a flow does at which step: its bottleneck's channels, their modules, layout and detail, and steps exchanged.

    python examples/flow_steps.py                                a minute on two cores, into out/flow-steps
    python examples/flow_steps.py --channels 128 --pairs 16      the pictures of docs/samplers.md, in some minutes
    python examples/flow_steps.py --generator FOLDER             another flow that ``train flow`` wrote

``flow-faces`` makes a face in eight Euler steps, so every layer of its U-Net runs eight times. The example asks which
channels of the bottleneck act at which step and where, and whether they keep their module; which steps decide layout
and which detail, by hybrids whose first or last steps are the source's; and what one step's content does at another.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from saving import run, save_figure, save_rows, save_sentences

import counterfactual_probe as cp
from counterfactual_probe.base.drawing import PALETTE, plot_images, plot_mosaic
from counterfactual_probe.invariance.scales import Scales

Array = npt.NDArray[np.float64]

MODULES = 3
STRONGEST = 6  # channels whose maps are shown
SHOWN = 6  # pairs in the sheets of hybrids
FEWEST = 8  # pairs whose blocks say how reproducible modules are
SHIFT = 0.06  # between curves, so that error bars do not overlap
CONFIDENT = 2  # standard errors on each side


class Following(NamedTuple):
    """How far hybrids follow their sources, (hybrids, scales), with standard errors: 0 as the base, 1 as the source."""

    share: Array
    error: Array


def following(hybrids: cp.Hybrids, scales: Scales) -> Following:
    """By scale, the regression coefficient of hybrid − base on source − base, over pairs, pixels and colours.

    Standard errors are those of the jackknife over pairs.
    """
    assert hybrids.source is not None
    wanted = scales.components((hybrids.source - hybrids.base).double().numpy())
    changed = scales.components((hybrids.images - hybrids.base).double().numpy())
    pixels = tuple(range(-3, 0))
    products = (changed * wanted[:, None]).sum(pixels).swapaxes(0, 1)  # (hybrids, scales, pairs)
    squares = (wanted**2).sum(pixels)  # (scales, pairs)
    share = products.sum(-1) / squares.sum(-1)
    without = (products.sum(-1, keepdims=True) - products) / (squares.sum(-1, keepdims=True) - squares)
    n = squares.shape[-1]
    return Following(share, np.sqrt((n - 1) / n * ((without - without.mean(-1, keepdims=True)) ** 2).sum(-1)))


def names_of(scales: Scales) -> list[str]:
    """Of each scale, coarsest first, by the size of what it shows."""
    coarse, *details = scales.pixels
    return [f"{coarse} pixels or more", *(f"{side // 2} to {side} pixels" for side in details)]


# --- channels and modules --------------------------------------------------------------------------


def channels(gen: cp.GeneratorAdapter, layer: str, out: Path, *, pairs: int, few: int) -> list[str]:
    """Which channels act when and where, and whether they keep their modules."""
    calls = gen.calls(layer)
    count = gen.layer(calls[0]).channels
    chosen = np.linspace(0, count - 1, min(few, count)).astype(int).tolist()
    maps = cp.InfluenceMap(gen, calls).attribute(
        n_pairs=pairs,
        units=[{call: [channel]} for call in calls for channel in chosen],
        blocks=min(32, pairs // 2) if pairs >= FEWEST else None,
        normalise="pair",
        show_progress=True,
    )
    maps.without_blocks().save(out / "maps.safetensors")
    save_figure(maps.plot_calls()[0], out / "calls.png")
    influence = maps.influence.view(len(calls), -1)
    error = maps.influence_standard_error.view(len(calls), -1)
    strongest = influence.sum(0).argsort(descending=True)[:STRONGEST]
    shown = maps.by_call()[:, strongest].swapaxes(0, 1).flatten(0, 1)
    labels = [f"{chosen[unit]} #{call}" for unit in strongest.tolist() for call in range(1, len(calls) + 1)]
    save_figure(plot_mosaic(shown.numpy(), labels=labels, across=len(calls), cell=0.9)[0], out / "maps.png")
    means, errors = influence.mean(1).tolist(), error.mean(1).tolist()
    peak = int(influence.mean(1).argmax())
    most = np.bincount(influence.argmax(0).numpy(), minlength=len(calls))
    sentences = [
        f"A channel of {layer} changes the image most at call {peak + 1}: by {means[peak]:.2g} ± {errors[peak]:.1g} on "
        f"average, at the first call by {means[0]:.2g} ± {errors[0]:.1g} and at the last by {means[-1]:.2g} ± "
        f"{errors[-1]:.1g}, of images in −1…1 ({pairs} pairs).",
        f"Channels that are strongest at calls 1 to {len(calls)}: {', '.join(map(str, most.tolist()))}.",
    ]
    return sentences + modules(maps, out)


def modules(maps: cp.InfluenceMaps, out: Path) -> list[str]:
    """Whether channels keep their module from call to call."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few pairs: the share that is reproducible says so
        kept = cp.modules_by_call(maps, MODULES, features="l2")
    kept.save(out / "modules.safetensors")
    print(kept)
    save_figure(kept.plot()[0], out / "modules-kept.png")
    save_figure(kept.plot_channels()[0], out / "modules-courses.png")
    save_figure(kept.plot_templates()[0], out / "modules-templates.png")
    chance, reproducible = kept.chance.mean(), kept.reproducible
    sentences = [
        f"From call to call, {kept.kept.min():.0%} to {kept.kept.max():.0%} of the channels keep their module, of "
        f"{MODULES}; by chance {chance:.0%} would (largest p-value {kept.p_value.max():.2g}). In one module at all "
        f"calls are {kept.kept_throughout:.0%}, by chance {kept.chance_throughout.mean():.0%}."
    ]
    if reproducible is not None and kept.standard_error is not None:
        below = kept.kept + CONFIDENT * kept.standard_error < np.minimum(reproducible[1:], reproducible[:-1])
        changed = [f"{call} → {call + 1}" for call in kept.calls[:-1][below].tolist()]
        fewer = (
            f"clearly fewer keep it at calls {', '.join(changed)}" if changed else "at no call do clearly fewer keep it"
        )
        sentences.append(
            f"Other latents would leave {reproducible.min():.0%} to {reproducible.max():.0%} of the channels in their "
            f"module at the same call; {fewer}."
        )
    return sentences


# --- layout and detail -----------------------------------------------------------------------------


def layout(gen: cp.GeneratorAdapter, layer: str, out: Path, *, pairs: int) -> list[str]:
    """Which steps decide the coarse scales of the image, and which the fine ones."""
    calls = gen.calls(layer)
    units = range(gen.layer(calls[0]).channels)
    steps = len(calls)
    ranges = [*((0, stop) for stop in range(1, steps + 1)), *((start, steps) for start in range(1, steps))]
    sets = [dict.fromkeys(calls[start:stop], units) for start, stop in ranges]
    z1, z2 = gen.sample(pairs, seed=0, stream=10), gen.sample(pairs, seed=0, stream=11)
    hybrids = cp.Hybridizer(gen, calls).hybridize(z1, z2, units=sets)
    scales = Scales((hybrids.base.shape[-2], hybrids.base.shape[-1]))
    found, names = following(hybrids, scales), names_of(scales)
    labels = [f"{start + 1}–{stop}" if stop - start > 1 else str(stop) for start, stop in ranges]
    save_rows(
        [
            {"calls": label, "scale": name, "share": float(share), "standard_error": float(error)}
            for label, shares, errors in zip(labels, *found, strict=True)
            for name, share, error in zip(names, shares, errors, strict=True)
        ],
        out / "layout",
    )
    first = [ranges.index((0, stop)) for stop in range(1, steps + 1)]
    last = [ranges.index((start, steps)) for start in range(steps)]
    save_figure(draw_layout(found, names, labels, first, last), out / "layout.png")
    shown = [ranges.index(part) for part in ((0, steps // 4), (0, steps // 2), (steps // 2, steps), (0, steps))]
    save_figure(sheet(hybrids, shown, [f"source's\ncalls {labels[row]}" for row in shown]), out / "hybrids.png")
    early, late = shown[0], shown[2]
    says = [
        f"Hybrids whose calls {labels[row]} of {layer} are the source's follow it by {told(found, row, 0)} at scales "
        f"of {names[0]}, and by {told(found, row, -1)} at {names[-1]}"
        for row in (early, late)
    ]
    return [f"{says[0]} ({pairs} pairs; 0: as the base, 1: as the source).", f"{says[1]}."]


def told(found: Following, row: int, scale: int) -> str:
    return f"{found.share[row, scale]:.2f} ± {found.error[row, scale]:.2f}"


def draw_layout(found: Following, names: list[str], labels: list[str], first: list[int], last: list[int]) -> Figure:
    """How far hybrids follow the source, by scale, for a growing number of first calls and of last ones."""
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for ax, rows in ((left, first), (right, last)):
        for scale, name in enumerate(names):
            at = np.arange(len(rows)) + SHIFT * (scale - (len(names) - 1) / 2)
            bars = CONFIDENT * found.error[rows, scale]
            ax.errorbar(at, found.share[rows, scale], bars, label=name, color=PALETTE[scale], lw=1.2, capsize=2)
        ax.set_xticks(range(len(rows)), [labels[row] for row in rows])
        ax.axhline(0, color="0.8", lw=1, zorder=0)
    left.set_xlabel("first calls that are the source's")
    right.set_xlabel("last calls that are the source's")
    left.set_ylabel("how far the image follows\nthe source")
    right.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1), title="scale")
    return figure


def sheet(hybrids: cp.Hybrids, rows: list[int], labels: list[str]) -> Figure:
    """Bases, sources and some hybrids, a row each."""
    assert hybrids.source is not None
    images = np.stack([part[:SHOWN].numpy() for part in (hybrids.base, hybrids.source, *hybrids.images[rows])])
    return plot_images(images, ["base", "source", *labels], hybrids.provenance["image_range"])[0]


# --- steps exchanged -------------------------------------------------------------------------------


def exchanged(gen: cp.GeneratorAdapter, layer: str, out: Path, *, pairs: int) -> list[str]:
    """What the content of each step does at one step in the middle: ``source_call=``."""
    steps = len(gen.calls(layer))
    at = 3 * steps // 4
    z1, z2 = gen.sample(pairs, seed=0, stream=10), gen.sample(pairs, seed=0, stream=11)
    hybridizer, units = cp.Hybridizer(gen, f"{layer}#{at}"), range(gen.layer(f"{layer}#{at}").channels)
    taken = [hybridizer.hybridize(z1, z2, units=units, source_call=call) for call in range(1, steps + 1)]
    scales = Scales((taken[0].base.shape[-2], taken[0].base.shape[-1]))
    parts = [following(one, scales) for one in taken]
    found, names = Following(*(np.concatenate(part) for part in zip(*parts, strict=True))), names_of(scales)
    changes = np.stack([(one.images[0] - one.base).abs().mean((1, 2, 3)).numpy() for one in taken])
    change, error = changes.mean(1), changes.std(1, ddof=1) / np.sqrt(pairs)
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.errorbar(range(1, steps + 1), change, CONFIDENT * error, color="0.2", capsize=2)
    left.set_ylabel(f"change of the image by\nanother step at call {at}")
    left.set_ylim(bottom=0)
    for scale, name in enumerate(names):
        bars = CONFIDENT * found.error[:, scale]
        there = np.arange(1, steps + 1) + SHIFT * (scale - (len(names) - 1) / 2)
        right.errorbar(there, found.share[:, scale], bars, label=name, color=PALETTE[scale], lw=1.2, capsize=2)
    right.set_ylabel("how far the image follows\nthe source")
    right.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1), title="scale")
    for ax in (left, right):
        ax.set_xlabel("the source's call that is put in")
        ax.axvline(at, color="0.85", lw=8, zorder=0)
    save_figure(figure, out / "source_call.png")
    least, most = int(change.argmin()), int(change.argmax())
    return [
        f"At call {at} of {layer}, the source's content of call {least + 1} changes the image least "
        f"({change[least]:.3f} ± {error[least]:.3f}), its content of call {most + 1} most ({change[most]:.3f} ± "
        f"{error[most]:.3f}), that of the same call by {change[at - 1]:.3f} ± {error[at - 1]:.3f}."
    ]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generator", default="flow-faces", help="a name or a folder (%(default)s)")
    parser.add_argument("--layer", default="velocity.middle", help="of the maps and modules (%(default)s)")
    parser.add_argument("--content", default="velocity.up.1", help="of layout and exchanged steps (%(default)s)")
    parser.add_argument("--pairs", type=int, default=8, help="pairs of latents for the maps (%(default)s)")
    parser.add_argument("--channels", type=int, default=64, help="of the maps, evenly chosen (%(default)s)")
    parser.add_argument("--hybrids", type=int, default=16, help="pairs for layout and exchanged steps (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("out/flow-steps"))
    args = parser.parse_args(arguments)
    gen: Any = cp.load(args.generator)
    args.out.mkdir(parents=True, exist_ok=True)
    sentences = layout(gen, args.content, args.out, pairs=args.hybrids)
    sentences += exchanged(gen, args.content, args.out, pairs=args.hybrids)
    sentences += channels(gen, args.layer, args.out, pairs=args.pairs, few=args.channels)
    save_sentences(sentences, args.out / "findings.md")


if __name__ == "__main__":
    run(main)
