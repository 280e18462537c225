"""The command ``counterfactual-probe invert``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

from ..common import common, generator_options, open_generator, save_figure, show
from ..options.output import results
from ..options.pictures import PICTURES, search_options
from ..options.values import count

_SHOWN = 16  # in the picture; the file holds all


def add_invert(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command's parser."""
    parser = command(
        "invert",
        _invert,
        "latents of given pictures, and how far off their images are",
        "invert dcgan-faces ~/Pictures --starts 8",
    )
    generator_options(parser)
    parser.add_argument("pictures", metavar="PICTURES", type=os.path.expanduser, help=PICTURES)
    parser.add_argument("-n", type=count, default=8, help="the most pictures (default 8)")
    search_options(parser)
    common(parser, "out/inversion", pairs=False)


def _invert(options: argparse.Namespace) -> None:
    from ...editing.pictures import pictures_for
    from ...inversion.invert import inverted

    generator = open_generator(options.generator, options.device)
    pictures = pictures_for(generator, options.pictures, most=options.n, seed=options.seed)
    with results(options, "inversion") as out:
        found = inverted(
            generator,
            pictures,
            starts=options.starts,
            steps=options.steps,
            seed=options.seed,
            show_progress=options.progress,
        )
        show(found.save(out / "inversion.safetensors"))
        show(save_figure(found.plot(most=_SHOWN)[0], out / "inversion.png"))
        show(found)
