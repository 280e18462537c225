"""The command ``counterfactual-probe explore``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..common import PAIRS, generator_options, made_by, open_generator, require_none, run_options, show
from ..options.layers import layers_option, regions_option
from ..options.output import force_option, results
from ..options.values import count, natural

if TYPE_CHECKING:
    from ...explorer.explore import Explorer
    from ...generator.adapter import GeneratorAdapter


def add_explore(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command's parser."""
    parser = command(
        "explore",
        _explore,
        "a page on which modules and channels of a generator are set by hand",
        "explore dcgan-faces --save explorer.html",
    )
    generator_options(parser)
    parser.add_argument(
        "--save",
        metavar="FILE",
        type=os.path.expanduser,
        help="write the page, one HTML file that needs no connection (default: show it in a browser, until Ctrl-C)",
    )
    parser.add_argument(
        "--port", type=natural, help="of the page in a browser (default 8765, or the next that is free)"
    )
    parser.add_argument(
        "--no-browser", dest="browser", action="store_false", help="say the address, and open no browser"
    )
    layers_option(parser)
    parser.add_argument("--pairs", type=count, default=PAIRS, help=f"pairs of latents per map (default {PAIRS})")
    parser.add_argument(
        "--precision",
        choices=["float16", "float32"],
        default="float16",
        help="of the weights in the file (default float16)",
    )
    regions_option(parser)
    force_option(parser)
    run_options(parser)


def _explore(options: argparse.Namespace) -> None:
    from ...base.files import as_path
    from ...explorer.hosts.server import require_libraries

    # What may be missing is missed now, before the generator is opened, and not after a minute.
    if options.save is None:
        require_libraries()
    else:
        require_none(options, "port", "with --save, which writes a file and shows none")
    generator = open_generator(options.generator, options.device)
    for layer in options.layers or ():
        generator.layer(layer)
    if options.save is None:
        _serve(options, _made(options, generator))
        return
    page = as_path(options.save)
    with results(options, page.stem, folder=page.parent):
        explorer = _made(options, generator)
        show(explorer.save(page))
        show(explorer)


def _made(options: argparse.Namespace, generator: GeneratorAdapter) -> Explorer:
    from ...explorer.explore import explore

    return explore(
        generator,
        options.layers,
        n_pairs=options.pairs,
        seed=options.seed,
        regions=None if options.regions is None else made_by(options.regions),
        precision=options.precision,
        show_progress=options.progress,
    )


def _serve(options: argparse.Namespace, explorer: Explorer) -> None:
    from ...explorer.hosts.server import PORT

    explorer.serve(
        PORT if options.port is None else options.port,
        open_browser=options.browser,
        say=lambda text: show(text, to=sys.stderr),
    )
