"""The command ``counterfactual-probe edit``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..common import common, generator_options, open_generator, save_figure, show
from ..options.output import results
from ..options.pictures import PICTURES, search_options
from ..options.values import count, number

if TYPE_CHECKING:
    from ...generator.adapter import GeneratorAdapter

_SHOWN = 16  # in the picture; the file holds all


def add_edit(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command's parser."""
    parser = command(
        "edit",
        _edit,
        "one module of pictures set to the values that it takes for others, by its name",
        "edit hf:user/name --module eyes --pictures ~/Pictures",
    )
    generator_options(parser)
    parser.add_argument("--module", required=True, help="the name of a module, or the start of it")
    parser.add_argument(
        "--modules-file",
        type=os.path.expanduser,
        metavar="FILE",
        help="a JSON file made by 'modules' or 'report', or one on the hub, hf:user/name/modules.json (default: the "
        "modules.json of the generator's folder or repository)",
    )
    parser.add_argument(
        "--pictures", type=os.path.expanduser, help=f"what is edited: {PICTURES} (default: random latents)"
    )
    parser.add_argument(
        "--source",
        type=os.path.expanduser,
        help=f"whose values are put in: {PICTURES}, one for all or one for each (default: random latents)",
    )
    parser.add_argument("-n", type=count, default=8, help="the most pictures, and how many random latents (default 8)")
    parser.add_argument("--strength", type=number, default=1.0, help="how far towards the source (default 1)")
    search_options(parser)
    common(parser, "out/edit", pairs=False)


def _edit(options: argparse.Namespace) -> None:
    import warnings

    from ...editing.choice import chosen_module, named_modules
    from ...editing.edit import edit
    from ...inversion.invert import NotReached

    generator = open_generator(options.generator, options.device)
    modules = named_modules(generator, options.modules_file)
    chosen_module(modules, options.module)
    given = _given(generator, options.pictures, options, options.n, stream=0)
    source = _given(generator, options.source, options, len(given) if options.pictures else options.n, stream=1)
    with results(options, "edited") as out, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotReached)  # the result says it
        edited = edit(
            generator,
            given,
            options.module,
            source=source,
            modules=modules,
            strength=options.strength,
            seed=options.seed,
            starts=options.starts,
            steps=options.steps,
            show_progress=options.progress,
        )
        show(edited.save(out / "edited.safetensors"))
        show(save_figure(edited.plot(most=_SHOWN)[0], out / "edited.png"))
        show(edited)


def _given(
    generator: GeneratorAdapter, pictures: str | None, options: argparse.Namespace, n: int, *, stream: int
) -> Any:
    """Pictures, or latents where none are given."""
    from ...editing.pictures import pictures_for

    if pictures is None:
        return generator.sample(n, seed=options.seed, stream=stream)
    return pictures_for(generator, pictures, most=n, seed=options.seed)
