"""The command ``counterfactual-probe explore``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable

from ..common import PAIRS, made_by, open_generator, require_none, show


def add_explore(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command's parser."""
    parser = command("explore", _explore, "a page on which modules and channels of a generator are set by hand")
    parser.add_argument("generator", metavar="GENERATOR")
    parser.add_argument(
        "--save",
        metavar="FILE",
        type=os.path.expanduser,
        help="write the page, one HTML file that needs no connection (default: show it in a browser, until Ctrl-C)",
    )
    parser.add_argument("--port", type=int, help="of the page in a browser (default 8765, or the next that is free)")
    parser.add_argument(
        "--no-browser", dest="browser", action="store_false", help="say the address, and open no browser"
    )
    parser.add_argument("--layers", help="names, separated by commas (default: the last of each resolution)")
    parser.add_argument("--pairs", type=int, default=PAIRS, help=f"pairs of latents per map (default {PAIRS})")
    parser.add_argument(
        "--precision",
        choices=["float16", "float32"],
        default="float16",
        help="of the weights in the file (default float16)",
    )
    parser.add_argument(
        "--regions",
        metavar="PACKAGE.MODULE:FACTORY",
        help="a factory of what names parts of the image: masks by name, or a module or function from images to "
        "label maps (default: the registry's, or centre, border and sides)",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", help="device to run on, such as cpu or cuda:0 (default: the generator's own)")
    parser.add_argument("--no-progress", dest="progress", action="store_false", help="no progress bars on stderr")


def _explore(options: argparse.Namespace) -> None:
    from ...base.files import as_path
    from ...explorer.explore import explore
    from ...explorer.hosts.server import PORT, require_libraries
    from ...reporting.folder import require_writable

    # What may be missing is missed now, and not after a minute.
    if options.save is None:
        require_libraries()
    else:
        require_none(options, "port", "with --save, which writes a file and shows none")
        require_writable(as_path(options.save).parent)
    explorer = explore(
        open_generator(options.generator, options.device),
        options.layers.split(",") if options.layers else None,
        n_pairs=options.pairs,
        seed=options.seed,
        regions=None if options.regions is None else made_by(options.regions),
        precision=options.precision,
        show_progress=options.progress,
    )
    if options.save is None:
        explorer.serve(
            PORT if options.port is None else options.port,
            open_browser=options.browser,
            say=lambda text: show(text, to=sys.stderr),
        )
        return
    show(explorer.save(options.save))
    show(explorer)
