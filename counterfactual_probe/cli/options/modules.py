"""Options on modules that were found before: the file that holds them."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...generator.adapter import GeneratorAdapter

_FILE = "a JSON file made by 'modules' or 'report', or one on the hub, hf:user/name/modules.json"


def modules_file_option(parser: argparse.ArgumentParser, *, default: str = "") -> None:
    """One file, on this machine or on the hub."""
    parser.add_argument("--modules-file", type=os.path.expanduser, metavar="FILE", help=f"{_FILE}{default}")


def require_modules_of(generator: GeneratorAdapter, path: str | None) -> None:
    """Raise a ProbeError where a file of modules is of other weights than the generator's."""
    from ...registry.modules import read_modules, require_same_weights

    if path is not None:
        require_same_weights(generator, read_modules(path).get("provenance"), f"of {path}")
