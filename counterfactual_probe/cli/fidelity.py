"""The command ``counterfactual-probe fidelity``."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.errors import ProbeError
from .common import (
    chosen_units,
    common,
    file_name,
    generator_options,
    open_generator,
    save_figure,
    show,
    unit_options,
)
from .defaults import FIDELITY_IMAGES, FIDELITY_RESAMPLES
from .options.modules import require_modules_of
from .options.output import results
from .options.values import count

if TYPE_CHECKING:
    from ..fidelity.compare import FidelityTest


def add_fidelity(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command's parser."""
    parser = command(
        "fidelity",
        _fidelity,
        "Fréchet distances between real, generated and hybrid images",
        "fidelity dcgan-faces --layer main.8 --units 3,17,40 --images 256",
    )
    generator_options(parser)
    unit_options(parser)
    parser.add_argument(
        "--features",
        default="inception",
        help="inception (the default), or a classifier's name or folder",
    )
    parser.add_argument(
        "--real",
        type=os.path.expanduser,
        metavar="PATH",
        help="a folder or zip of real pictures, or an .npy file",
    )
    parser.add_argument(
        "--training",
        type=os.path.expanduser,
        metavar="PATH",
        help="the same of the images that the generator was trained on",
    )
    parser.add_argument("--skip-unreadable", action="store_true", help="leave out pictures that cannot be decoded")
    parser.add_argument(
        "--images", type=count, help=f"of each group (default {FIDELITY_IMAGES}, or as many as are real)"
    )
    parser.add_argument(
        "--resamples",
        type=count,
        default=FIDELITY_RESAMPLES,
        help=f"for standard errors (default {FIDELITY_RESAMPLES})",
    )
    common(parser, "out/fidelity", pairs=False)


def _fidelity(options: argparse.Namespace) -> None:
    from ..fidelity.compare import FidelityTest

    if options.real and options.training:
        raise ProbeError("both --real and --training are given; give the images that the table is to be divided by")
    units, labels, layers = chosen_units(options)
    generator = open_generator(options.generator, options.device)
    require_modules_of(generator, options.modules_file)
    test = FidelityTest(generator, layers, features=options.features)
    name = f"fidelity-{file_name(layers)}"
    with results(options, name) as out:
        _measure(options, test, units, labels, out / name)


def _measure(
    options: argparse.Namespace, test: FidelityTest, units: list[Any], labels: list[str] | None, start: Path
) -> None:
    from ..fidelity.frechet import FewSamples

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", FewSamples)
        result = test.measure(
            units,
            labels=labels,
            real=options.real or options.training,
            skip_unreadable=options.skip_unreadable,
            real_is="training images" if options.training else None,
            n_images=options.images,
            resamples=options.resamples,
            seed=options.seed,
            show_progress=options.progress,
        )
    for note in result.provenance["real_notes"] if options.skip_unreadable else ():
        show(f"counterfactual-probe: {note}", to=sys.stderr)
    for warning in caught:
        show(f"counterfactual-probe: {warning.message}", to=sys.stderr)
    show(result.save(f"{start}.safetensors"))
    show(result.to_csv(f"{start}.csv"))
    show(result.to_json(f"{start}.json"))
    show(save_figure(result.plot()[0], start.with_name(f"{start.name}.png")))
    examples = start.name.replace("fidelity-", "examples-", 1)
    show(save_figure(result.plot_examples()[0], start.with_name(f"{examples}.png")))
    show(result)
