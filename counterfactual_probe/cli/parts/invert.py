"""The command ``counterfactual-probe invert``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any

from ..common import common, generator_options, open_generator, save_figure, show
from ..options.output import results
from ..options.pictures import PICTURES, search_options
from ..options.values import class_of, count

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
    parser.add_argument(
        "--classes",
        nargs="+",
        type=class_of,
        metavar="CLASS",
        help="names or numbers, one for all pictures or one for each (default: each start as sampling gives it)",
    )
    parser.add_argument("-n", type=count, default=8, help="the most pictures (default 8)")
    search_options(parser)
    common(parser, "out/inversion", pairs=False)


def _invert(options: argparse.Namespace) -> None:
    from ...editing.pictures import pictures_for
    from ...inversion.invert import inverted

    generator = open_generator(options.generator, options.device)
    pictures = pictures_for(generator, options.pictures, most=options.n, seed=options.seed)
    conditions = _conditions(options.classes)
    generator.sample(len(pictures), **conditions)  # what is wrong with them is said now
    with results(options, "inversion") as out:
        found = inverted(
            generator,
            pictures,
            starts=options.starts,
            steps=options.steps,
            seed=options.seed,
            show_progress=options.progress,
            conditions=conditions,
        )
        show(found.save(out / "inversion.safetensors"))
        show(save_figure(found.plot(most=_SHOWN)[0], out / "inversion.png"))
        show(found)


def _conditions(classes: list[int | str] | None) -> dict[str, Any]:
    if classes is None:
        return {}
    return {"classes": classes[0] if len(classes) == 1 else classes}
