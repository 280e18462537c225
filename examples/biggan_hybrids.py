"""Hybrids across two classes of BigGAN-deep, by modules of its GenBlocks (S003 §4.2, Fig. 5, 13 and 15).

For each GenBlock the example computes influence maps of two successive convolutions, for pairs of the two classes in
both directions, finds three modules in each by NMF, matches the modules of the two layers by their templates, and makes
hybrids that set both at once. It writes a picture of hybrids and one of templates per block. S003 does not say which
two convolutions it used: here they are the last two.

The paper's generator needs about 86 000 hybrids for 16 pairs, which takes hours on a CPU: use --device cuda if there is
a GPU, or fewer --blocks. Started again, the same command resumes where it stopped.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from counterfactual_probe.adapters.biggan_deep import genblock, random_biggan_deep

import counterfactual_probe as cp


def run(first: str, second: str, arguments: Sequence[str] | None = None) -> list[Path]:
    """Run an example from its command line; returns the pictures it wrote."""
    parser = argparse.ArgumentParser(
        description=f"Hybrids of {first} and {second}.\n\n{__doc__}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser, out=f"out/{first}-{second}")
    add_picture_options(parser)
    return hybrids((first, second), parser.parse_args(arguments))


def hybrids(classes: tuple[str, str], options: argparse.Namespace) -> list[Path]:
    """Two pictures for each GenBlock: hybrids in both directions, and the templates of the modules."""
    try:
        gen = opened(options)
        written = []
        for block in options.blocks:
            written += _block(gen, block, classes, options)
    except cp.ProbeError as error:
        raise SystemExit(str(error)) from error
    return written


def _block(gen: cp.GeneratorAdapter, block: int, names: tuple[str, str], options: argparse.Namespace) -> list[Path]:
    layers = [genblock(gen, block, part) for part in options.layers]
    match = matched(gen, block, names, options.pairs, options)
    # These latents were not used to find the modules.
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
            checkpoint=None if options.out is None else options.out / f"genblock-{block}-{part}-{n_pairs}.progress",
            show_progress=True,
        )
        finders.append(cp.ModuleFinder(options.modules).fit(maps))
    return cp.match_modules(*finders)


def pairs(gen: cp.GeneratorAdapter, names: tuple[str, str], n: int, seed: int, truncation: float) -> tuple[Any, Any]:
    """Base and source latents of different classes; each class is the base of half of the pairs."""
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


def opened(options: argparse.Namespace) -> cp.GeneratorAdapter:
    """The generator of the options."""
    if options.random_weights:
        random: cp.GeneratorAdapter = random_biggan_deep("small", device=options.device)
        return random
    return cp.load(options.weights, device=options.device)


def add_options(
    parser: argparse.ArgumentParser,
    *,
    out: str,
    generator: str = "biggan-deep-256",
    blocks: Sequence[int] = (4, 5, 6, 7),
    truncation: float = 0.4,
) -> None:
    """Options of the generator and of its modules."""
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument(
        "--weights",
        default=generator,
        metavar="PATH",
        help="folder with config.json and weights, or a name in the registry (%(default)s)",
    )
    weights.add_argument(
        "--random-weights", action="store_true", help="use a small untrained generator, for a quick test"
    )
    parser.add_argument("--out", type=Path, default=Path(out), help="folder to write into (%(default)s)")
    parser.add_argument(
        "--blocks",
        type=int,
        nargs="+",
        default=list(blocks),
        help=f"GenBlocks, from 1 ({' '.join(map(str, blocks))})",
    )
    parser.add_argument("--layers", nargs=2, default=["conv_2", "conv_3"], help="two layers of a block (conv_2 conv_3)")
    parser.add_argument("--modules", type=int, default=3, help="modules in each layer (%(default)s)")
    parser.add_argument("--truncation", type=float, default=truncation, help="truncation of the latents (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", help="such as cuda; by default the CPU")


def add_picture_options(parser: argparse.ArgumentParser) -> None:
    """How many pairs the maps are made of, and how many are shown."""
    parser.add_argument("--pairs", type=int, default=16, help="pairs of latents for the maps (%(default)s)")
    parser.add_argument("--shown", type=int, default=3, help="pairs in the picture, in each direction (%(default)s)")
