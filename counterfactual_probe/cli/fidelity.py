"""The command ``counterfactual-probe fidelity``."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable

from ..base.errors import ProbeError
from .common import chosen_units, common, file_name, open_generator, output_folder, save_figure, show, unit_options
from .defaults import FIDELITY_IMAGES, FIDELITY_RESAMPLES


def add_fidelity(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command's parser."""
    parser = command("fidelity", _fidelity, "Fréchet distances between real, generated and hybrid images")
    parser.add_argument("generator", metavar="GENERATOR")
    unit_options(parser)
    parser.add_argument(
        "--features",
        default="inception",
        help="inception (the default), or a classifier's name or folder",
    )
    parser.add_argument("--real", metavar="PATH", help="a folder or zip of real pictures, or an .npy file")
    parser.add_argument("--training", metavar="PATH", help="the same of the images that the generator was trained on")
    parser.add_argument("--skip-unreadable", action="store_true", help="leave out pictures that cannot be decoded")
    parser.add_argument("--images", type=int, help=f"of each group (default {FIDELITY_IMAGES}, or as many as are real)")
    parser.add_argument(
        "--resamples", type=int, default=FIDELITY_RESAMPLES, help=f"for standard errors (default {FIDELITY_RESAMPLES})"
    )
    common(parser, "out/fidelity", pairs=False)


def _fidelity(options: argparse.Namespace) -> None:
    from ..fidelity.compare import FidelityTest
    from ..fidelity.frechet import FewSamples

    if options.real and options.training:
        raise ProbeError("both --real and --training are given; give the images that the table is to be divided by")
    generator = open_generator(options.generator, options.device)
    units, labels, layers = chosen_units(options)
    test = FidelityTest(generator, layers, features=options.features)
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
    out, name = output_folder(options), f"fidelity-{file_name(layers)}"
    show(result.save(out / f"{name}.safetensors"))
    show(result.to_csv(out / f"{name}.csv"))
    show(result.to_json(out / f"{name}.json"))
    show(save_figure(result.plot()[0], out / f"{name}.png"))
    show(save_figure(result.plot_examples()[0], out / f"examples-{file_name(layers)}.png"))
    show(result)
