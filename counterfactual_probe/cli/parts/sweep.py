"""The command ``counterfactual-probe sweep``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

from ..common import NOTHING, show
from ..options.output import force_option
from ..options.values import count


def add_sweep(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command's parser."""
    parser = command(
        "sweep",
        _sweep,
        "one command for many generators, layers and settings, as jobs that resume, with one table of results",
        "sweep sweep.toml --workers 2",
    )
    parser.add_argument("file", metavar="FILE.toml", type=os.path.expanduser, help="the command and its settings")
    parser.add_argument("--out", type=os.path.expanduser, help="folder to write into (default: as FILE.toml says)")
    parser.add_argument("--workers", type=count, help="jobs that run at a time (default: as FILE.toml says, or 2)")
    parser.add_argument(
        "--cluster", choices=["local", "slurm"], help="where jobs run (default: on Slurm where it is, or here)"
    )
    force_option(parser)
    parser.add_argument("--no-progress", dest="progress", action="store_false", help="no progress bar on stderr")


def _sweep(options: argparse.Namespace) -> int:
    from ...sweeping.sweep import sweep

    found = sweep(
        options.file,
        out=options.out,
        workers=options.workers,
        cluster=options.cluster,
        force=options.force,
        show_progress=options.progress,
    )
    show(found)
    show(found.out / "table.csv")
    return NOTHING if found.failed else 0
