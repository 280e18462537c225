"""Options on the classes of conditional generators."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from .values import class_of

if TYPE_CHECKING:
    from ...generator.adapter import GeneratorAdapter
    from ...generator.latents import Latents


def classes_option(parser: argparse.ArgumentParser, *, base: str = "the base") -> None:
    """The classes of a base and a source, of generators that have classes."""
    parser.add_argument(
        "--classes",
        nargs=2,
        type=class_of,
        metavar=("BASE", "SOURCE"),
        help=f"names or numbers: the class of {base} and that of the source (default: as sampling gives them)",
    )


def conditions_of(options: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """What :meth:`GeneratorAdapter.sample` is to be given for the base and for the source."""
    if options.classes is None:
        return {}, {}
    base, source = options.classes
    return {"classes": base}, {"classes": source}


def sampled_pairs(generator: GeneratorAdapter, options: argparse.Namespace, n: int) -> tuple[Latents, Latents]:
    """Latents of n bases and of n sources."""
    base, source = (
        generator.sample(n, seed=options.seed, stream=stream, **conditions)
        for stream, conditions in enumerate(conditions_of(options))
    )
    return base, source
