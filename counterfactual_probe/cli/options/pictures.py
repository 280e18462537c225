"""Options on given pictures, and on how their latents are searched."""

from __future__ import annotations

import argparse

from .values import count

PICTURES = "a picture, a folder or zip of pictures, a .npy file, or generator:NAME"


def search_options(parser: argparse.ArgumentParser) -> None:
    """How long latents are searched, of generators that have no encoder."""
    parser.add_argument("--starts", type=count, default=4, help="latents that are tried for each picture (default 4)")
    parser.add_argument("--steps", type=count, default=200, help="steps of the search from each (default 200)")
