"""What classifiers see in hybrids of two classes of BigGAN-deep, by modules of its GenBlocks (S003 §4.2).

For each GenBlock three modules are found in each of two successive convolutions, matched by their templates, and set
together, as in the example of hybrids. The page that is written has the rates of recognition and the distances by
depth (Fig. 6), the entropies (Fig. 14, 16), and what the classifiers do not agree on (Fig. 17, Table 3).
Started again, the same command resumes where it stopped.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from biggan_hybrids import matched, opened

import counterfactual_probe as cp
from counterfactual_probe.reporting.sections.robustness import write_robustness_page


def run(
    classes: tuple[str, str], options: argparse.Namespace, classifiers: Callable[[], Sequence[cp.Classifier]]
) -> Path:
    """Score classifiers, which are opened after the generator; returns the page."""
    try:
        gen = opened(options)
        probe = cp.RobustnessProbe(gen, classifiers())
        units = {f"GenBlock {block}": modules(gen, block, classes, options) for block in options.blocks}
        pairs = _pairs(gen, classes, options)
        result = probe.score(*pairs, units_by_layer=units, classes=classes, show_progress=True)
    except cp.ProbeError as error:
        raise SystemExit(str(error)) from error
    print(result)
    print(result.ranking())
    page = write_robustness_page(result, options.out)
    print(page)
    return page


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the scoring; those of the generator and its modules are those of the example of hybrids."""
    parser.add_argument("--pairs", type=int, default=100, help="pairs to score (%(default)s)")
    parser.add_argument("--map-pairs", type=int, default=16, help="pairs of latents for the maps (%(default)s)")


def modules(
    gen: cp.GeneratorAdapter, block: int, classes: tuple[str, str], options: argparse.Namespace
) -> dict[str, cp.UnitSet]:
    """Matched modules of two successive convolutions of a GenBlock, by their numbers."""
    match = matched(gen, block, classes, options.map_pairs, options)
    return {str(k): units for k, units in enumerate(match.units, 1)}


def _pairs(gen: cp.GeneratorAdapter, classes: tuple[str, str], options: argparse.Namespace) -> tuple[Any, Any]:
    """Bases of one class and sources of the other, from latents that were not used to find the modules."""
    drawn = [
        gen.sample(options.pairs, seed=options.seed + 1, stream=k, classes=name, truncation=options.truncation)
        for k, name in enumerate(classes)
    ]
    return drawn[0], drawn[1]
