"""The command ``counterfactual-probe exchange``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from ..common import (
    PAIRS,
    chosen_units,
    common,
    file_name,
    generator_options,
    open_generator,
    save_figure,
    show,
    unit_options,
)
from ..defaults import EXCHANGE_CONTROLS
from ..options.modules import require_modules_of
from ..options.output import results
from ..options.values import count, natural


def add_exchange(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command's parser."""
    parser = command(
        "exchange",
        _exchange,
        "what exchanging modules changes, and what not, beside random sets of units",
        "exchange dcgan-faces-small --layer main.8 --units '3,17;4,5,6' --images 4",
    )
    generator_options(parser)
    unit_options(parser)
    parser.add_argument("--pairs", type=count, default=PAIRS, help=f"pairs of latents, at least 2 (default {PAIRS})")
    parser.add_argument(
        "--controls",
        type=natural,
        default=EXCHANGE_CONTROLS,
        help=f"random sets of each kind for each module (default {EXCHANGE_CONTROLS})",
    )
    parser.add_argument(
        "--images",
        type=natural,
        default=8,
        help="pairs whose hybrids are searched among the generator's own images, which takes most of the time; 0 for "
        "none (default 8)",
    )
    parser.add_argument("--steps", type=count, default=100, help="steps of the search from each latent (default 100)")
    common(parser, "out/exchange", pairs=False)


def _exchange(options: argparse.Namespace) -> None:
    from ...exchanging.exchange import exchange

    units, _, layers = chosen_units(options)
    modules = options.modules_file or _numbered(units, *layers)  # a file says of which weights its modules are
    generator = open_generator(options.generator, options.device)
    require_modules_of(generator, options.modules_file)
    name = f"exchange-{file_name(layers)}"
    with results(options, name) as out:
        found = exchange(
            generator,
            modules,
            n_pairs=options.pairs,
            controls=options.controls,
            images=options.images,
            steps=options.steps,
            seed=options.seed,
            show_progress=options.progress,
        )
        show(found.save(out / f"{name}.safetensors"))
        show(found.to_csv(out / f"{name}.csv"))
        show(found.to_json(out / f"{name}.json"))
        show(save_figure(found.plot()[0], out / f"{name}.png"))
        layer = file_name(layers)
        if len(found) > 1:
            show(save_figure(found.plot_interaction()[0], out / f"interaction-{layer}.png"))
        if found.groups is not None:
            show(save_figure(found.plot_faithfulness()[0], out / f"faithfulness-{layer}.png"))
            show(save_figure(found.plot_nearest()[0], out / f"nearest-{layer}.png"))
        show(found)


def _numbered(units: Sequence[Any], layer: str) -> dict[str, Any]:
    """Units of a layer under names of their own."""
    return {f"set {number}": {layer: some} for number, some in enumerate(units, 1)}
