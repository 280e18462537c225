"""The command ``counterfactual-probe invariance``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.errors import ProbeError
from .common import common, file_name, generator_options, open_generator, save_figure, show
from .defaults import INVARIANCE_IMAGES
from .options.layers import layers_option
from .options.output import results
from .options.values import count

if TYPE_CHECKING:
    from ..generator.adapter import GeneratorAdapter
    from ..invariance.stretch import StretchTest


def add_invariance(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command's parser."""
    parser = command(
        "invariance",
        _invariance,
        "transform a layer's maps, and compare the image with the transformed one",
        "invariance dcgan-faces --layers main.5,main.8 --transformation stretch:1.5",
    )
    generator_options(parser)
    layers_option(parser)
    parser.add_argument(
        "--transformation",
        default="stretch:1.5",
        help="stretch:FACTOR, shift:RIGHT,DOWN as shares of the size, flip:AXIS or rotation:DEGREES "
        "(default stretch:1.5)",
    )
    parser.add_argument(
        "--images", type=count, default=INVARIANCE_IMAGES, help=f"number of images (default {INVARIANCE_IMAGES})"
    )
    parser.add_argument("--levels", type=count, help="how often images are halved (default 4, or as often as possible)")
    parser.add_argument("--wavelet", default="haar", help="an orthogonal wavelet of PyWavelets (default haar)")
    common(parser, "out/invariance", pairs=False)


def _invariance(options: argparse.Namespace) -> None:
    from ..invariance.stretch import StretchTest
    from ..invariance.transformations import parse

    generator = open_generator(options.generator, options.device)
    layers = options.layers or spatial_layers(generator)
    transformation = parse(options.transformation)
    tests = [
        StretchTest(generator, layer, transformation=transformation, levels=options.levels, wavelet=options.wavelet)
        for layer in layers
    ]
    layers = [test.layer.name for test in tests]
    name = file_name(layers)
    written = {f"invariance-{name}", *(f"invariance-{file_name([layer])}" for layer in layers)}
    with results(options, *sorted(written)) as out:
        _measure(options, tests, out, name)


def _measure(options: argparse.Namespace, tests: list[StretchTest], out: Path, name: str) -> None:
    from ..base.files import write_text
    from ..reporting.sections.invariance import KEPT, as_csv

    measured = [
        test.measure(n_images=options.images, seed=options.seed, keep=KEPT, show_progress=options.progress)
        for test in tests
    ]
    for result in measured:
        show(result.save(out / f"invariance-{file_name([result.layer])}.safetensors"))
    show(write_text(out / f"invariance-{name}.csv", as_csv(measured)))
    first, *others = measured
    show(save_figure(first.plot_images(against=others).figure, out / f"images-{name}.png"))
    show(save_figure(first.plot_scales(against=others).figure, out / f"scales-{name}.png"))
    show(save_figure(first.plot(against=others).figure, out / f"mse-{name}.png"))
    relative = first.plot(against=others, relative=True)
    show(save_figure(relative.figure, out / f"relative-mse-{name}.png"))
    for result in measured:
        show(result)


def spatial_layers(generator: GeneratorAdapter) -> list[str]:
    """The last layer of each resolution that has a height and a width."""
    from ..reporting.choice import default_layers

    layers = [name for name in default_layers(generator) if len(generator.layer(name).size) == 2]
    if not layers:
        raise ProbeError(f"no layer of {generator.name} has maps with a height and a width; name one with --layers")
    return layers
