"""Hybrids across two classes of BigGAN-deep, by modules of its GenBlocks (S003 §4.2, Fig. 5, 13 and 15).

For each GenBlock: influence maps of two successive convolutions for pairs of the two classes, in both directions; three
modules in each by NMF; the modules of the two layers matched by their templates; and hybrids that set both at once. One
picture of hybrids and one of templates per block. Which two convolutions S003 took it does not say: here the last two.

The paper's generator needs some 86 000 hybrids for 16 pairs, which is hours on a processor: give --device cuda where
there is one, or fewer --blocks. The same command, started again, goes on where it was.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from counterfactual_probe.adapters.biggan_deep import genblock, random_biggan_deep

import counterfactual_probe as cp


def run(first: str, second: str, arguments: Sequence[str] | None = None) -> list[Path]:
    """The whole of an example, from its command line to the pictures it wrote."""
    options = _options(first, second, arguments)
    try:
        gen = _generator(options)
        written = []
        for block in options.blocks:
            written += _block(gen, block, (first, second), options)
    except cp.ProbeError as error:
        raise SystemExit(str(error)) from error
    return written


def _block(gen: cp.GeneratorAdapter, block: int, names: tuple[str, str], options: argparse.Namespace) -> list[Path]:
    layers = [genblock(gen, block, part) for part in options.layers]
    match = matched(gen, block, names, options.pairs, options)
    # Other latents than those that the modules were found with.
    shown = pairs(gen, names, 2 * options.shown, options.seed + 1, options.truncation)
    hybrids = cp.Hybridizer(gen, layers).hybridize(*shown, units=match.units)
    plotted = hybrids.plot(labels=[f"module {k}" for k in range(1, len(match.units) + 1)])
    plotted[1].set_xlabel(f"bases: {names[0]}, {names[1]} and so on in turn; sources: the other class")
    title = f"{names[0]} and {names[1]}, GenBlock {block} ({' and '.join(options.layers)}): {gen.name}"
    return [
        _saved(plotted, title, options.out / f"genblock-{block}.png"),
        _saved(match.plot(), title, options.out / f"genblock-{block}-templates.png"),
    ]


def matched(
    gen: cp.GeneratorAdapter, block: int, names: tuple[str, str], n_pairs: int, options: argparse.Namespace
) -> cp.ModuleMatch:
    """Modules of two successive convolutions of a GenBlock, matched by their templates."""
    z1, z2 = pairs(gen, names, n_pairs, options.seed, options.truncation)
    finders = []
    for part in options.layers:
        maps = cp.InfluenceMap(gen, genblock(gen, block, part)).attribute(
            z1,
            z2,
            checkpoint=options.out / f"genblock-{block}-{part}-{n_pairs}.progress",
            show_progress=True,
        )
        finders.append(cp.ModuleFinder(options.modules).fit(maps))
    return cp.match_modules(*finders)


def pairs(gen: cp.GeneratorAdapter, names: tuple[str, str], n: int, seed: int, truncation: float) -> tuple[Any, Any]:
    """Base and source latents of different classes, each class as often the base as the other."""
    base = [names[i % 2] for i in range(n)]
    source = [names[1 - i % 2] for i in range(n)]
    return (
        gen.sample(n, seed=seed, stream=0, classes=base, truncation=truncation),
        gen.sample(n, seed=seed, stream=1, classes=source, truncation=truncation),
    )


def _saved(plotted: tuple[Any, Any], title: str, path: Path) -> Path:
    figure, ax = plotted
    ax.set_title(title, fontsize="medium")
    figure.savefig(path, dpi=150, bbox_inches="tight")
    print(path)
    return path


def _generator(options: argparse.Namespace) -> cp.GeneratorAdapter:
    if options.random_weights:
        random: cp.GeneratorAdapter = random_biggan_deep("small", device=options.device)
        return random
    return cp.load(options.weights, device=options.device)


def _options(first: str, second: str, arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=f"Hybrids of {first} and {second}.\n\n{__doc__}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument(
        "--weights",
        default="biggan-deep-256",
        metavar="PATH",
        help="folder with config.json and pytorch_model.bin, or a name of the registry (%(default)s)",
    )
    weights.add_argument(
        "--random-weights", action="store_true", help="a small generator that has learnt nothing, to try this out"
    )
    parser.add_argument("--out", type=Path, default=Path(f"out/{first}-{second}"), help="folder for the pictures")
    parser.add_argument("--pairs", type=int, default=16, help="pairs of latents behind the maps (%(default)s)")
    parser.add_argument("--shown", type=int, default=3, help="pairs in the picture, in each direction (%(default)s)")
    parser.add_argument("--blocks", type=int, nargs="+", default=[4, 5, 6, 7], help="GenBlocks, from 1 (4 5 6 7)")
    parser.add_argument("--layers", nargs=2, default=["conv_2", "conv_3"], help="two of a block's (conv_2 conv_3)")
    parser.add_argument("--modules", type=int, default=3, help="modules in each layer (%(default)s)")
    parser.add_argument("--truncation", type=float, default=0.4, help="of the latents (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", help="such as cuda; by default the processor")
    return parser.parse_args(arguments)
