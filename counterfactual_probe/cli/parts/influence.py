"""The command ``counterfactual-probe influence``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from ..common import PAIRS, common, file_name, generator_options, open_generator, save_figure, show
from ..defaults import COMPONENTS, PRECISIONS
from ..options.layers import layer_option
from ..options.output import results
from ..options.swaps import axis_options, extent_arguments, unit_arguments
from ..options.values import count, positive

if TYPE_CHECKING:
    from ...influence.maps import InfluenceMaps


def add_influence(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command's parser."""
    parser = command(
        "influence",
        _influence,
        "influence maps of every channel (or other unit) of a layer",
        "influence dcgan-faces --layer main.8 --normalise pair",
    )
    generator_options(parser)
    layer_option(parser, required=True)
    parser.add_argument("--tolerance", type=positive, help="stop each map at this relative standard error")
    parser.add_argument(
        "--normalise", choices=["pair"], help="pair: also maps in which each pair counts equally, for --features l2"
    )
    parser.add_argument("--blocks", type=count, help="sum pairs up in so many blocks, for the confidence of modules")
    parser.add_argument(
        "--map-size",
        type=count,
        metavar="PIXELS",
        help="average maps down to this height and width",
    )
    parser.add_argument(
        "--components",
        type=count,
        help=f"also in so many principal components, for --features pca ({COMPONENTS} is a good number)",
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="float32",
        help="float32 is exact; bf16-diff is faster, and off by about 0.1 %%, and so is tf32 on a GPU, by more "
        "(default float32)",
    )
    parser.add_argument(
        "--checkpoint",
        type=os.path.expanduser,
        metavar="FILE",
        help="for the progress: the same command goes on from it",
    )
    axis_options(parser)
    common(parser, "out/influence")


def measurement(options: argparse.Namespace) -> Callable[..., InfluenceMaps]:
    """A function that makes maps of all units with the options that commands share, and more arguments.

    What is wrong with the generator, the layer or a file is said now.
    """
    from ...influence.influence_map import InfluenceMap

    extent = extent_arguments(options)
    generator = open_generator(options.generator, options.device)
    return partial(
        InfluenceMap(generator, options.layer, **unit_arguments(options)).attribute,
        n_pairs=PAIRS if options.pairs is None else options.pairs,
        seed=options.seed,
        show_progress=options.progress,
        **extent,
    )


def _influence(options: argparse.Namespace) -> None:
    from ...base.display.text import counted

    attribute = measurement(options)
    name = f"maps-{file_name([options.layer])}"
    with results(options, name) as out:
        maps = attribute(
            tolerance=options.tolerance,
            normalise=options.normalise,
            blocks=options.blocks,
            map_size=options.map_size,
            components=options.components,
            precision=options.precision,
            checkpoint=options.checkpoint,
        )
        if options.tolerance is not None:
            reached = f"{len(maps) - len(maps.missed)} of {counted(len(maps), 'map')}"
            show(f"{reached} reached the tolerance of {options.tolerance:g}")
        show(maps.save(out / f"{name}.safetensors"))
        show(save_figure(maps.plot(most=len(maps))[0], out / f"{name}.png"))
