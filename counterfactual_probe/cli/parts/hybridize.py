"""The command ``counterfactual-probe hybridize``."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from ..common import (
    chosen_units,
    common,
    file_name,
    generator_options,
    modules_of,
    open_generator,
    save_figure,
    show,
    trust,
    unit_options,
)
from ..options.classes import classes_option, sampled_pairs
from ..options.modules import require_modules_of
from ..options.output import results
from ..options.swaps import axis_options, extent_arguments, unit_arguments
from ..options.values import count

_SHOWN = 16  # pairs in the picture; the file holds all


def add_hybridize(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command's parser."""
    parser = command(
        "hybridize",
        _hybridize,
        "hybrids of random pairs, by channels or by modules",
        "hybridize dcgan-faces --layer main.8 --units '3,17;40'",
    )
    generator_options(parser)
    unit_options(parser)
    parser.add_argument("-n", type=count, default=8, help="number of pairs (default 8)")
    classes_option(parser)
    axis_options(parser)
    common(parser, "out/hybrids", pairs=False)


def _hybridize(options: argparse.Namespace) -> None:
    from ...hybrids.hybridizer import Hybridizer

    units, labels, layers = chosen_units(options)
    extent = extent_arguments(options)
    generator = open_generator(options.generator, options.device)
    require_modules_of(generator, options.modules_file)
    hybridizer = Hybridizer(generator, layers, **unit_arguments(options))
    name = f"hybrids-{file_name(layers)}"
    z1, z2 = sampled_pairs(generator, options, options.n)
    with results(options, name) as out:
        if options.modules_file:
            show(trust(modules_of(options.modules_file)))
        hybrids = hybridizer.hybridize(z1, z2, units=units, show_progress=options.progress, **extent)
        show(hybrids.save(out / f"{name}.safetensors"))
        show(save_figure(hybrids.plot(labels=labels, most=_SHOWN)[0], out / f"{name}.png"))
        if options.n > _SHOWN:
            show(f"the picture shows the first {_SHOWN} of {options.n} pairs")
