"""Options that name layers of a generator, and parts of its images."""

from __future__ import annotations

import argparse

from .values import names


def layer_option(parser: argparse.ArgumentParser, *, what: str = "the layer", required: bool = False) -> None:
    """One layer."""
    parser.add_argument("--layer", required=required, help=f"{what}, by its name; 'layers' lists all")


def layers_option(parser: argparse.ArgumentParser) -> None:
    """Several layers, each for itself."""
    parser.add_argument(
        "--layers", type=names, help="names, separated by commas (default: the last of each resolution)"
    )


def regions_option(parser: argparse.ArgumentParser) -> None:
    """By which names the parts of an image go."""
    parser.add_argument(
        "--regions",
        metavar="PACKAGE.MODULE:FACTORY",
        help="a factory of what names parts of the image: masks by name, or a module or function from images to "
        "label maps (default: the registry's, or centre, border and sides)",
    )
