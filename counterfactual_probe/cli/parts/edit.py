"""The command ``counterfactual-probe edit``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ...base.errors import ProbeError
from ..common import common, generator_options, open_generator, save_figure, show
from ..options.classes import classes_option, conditions_of
from ..options.modules import modules_file_option
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
    modules_file_option(parser, default=" (default: the modules.json of the generator's folder or repository)")
    parser.add_argument(
        "--pictures", type=os.path.expanduser, help=f"what is edited: {PICTURES} (default: random latents)"
    )
    parser.add_argument(
        "--source",
        type=os.path.expanduser,
        help=f"whose values are put in: {PICTURES}, one for all or one for each (default: random latents)",
    )
    classes_option(parser, base="what is edited")
    parser.add_argument("-n", type=count, default=8, help="the most pictures, and how many random latents (default 8)")
    parser.add_argument("--strength", type=number, default=1.0, help="how far towards the source (default 1)")
    search_options(parser)
    common(parser, "out/edit", pairs=False)


def _edit(options: argparse.Namespace) -> None:
    import warnings

    from ...editing.choice import chosen_module, named_modules
    from ...editing.edit import edit
    from ...generator.adapter import BASE, SOURCE
    from ...inversion.invert import NotReached

    generator = open_generator(options.generator, options.device)
    modules = named_modules(generator, options.modules_file)
    chosen_module(modules, options.module)
    base, source = conditions_of(options)
    given = _given(generator, options.pictures, options, options.n, base, stream=BASE)
    n = len(given) if options.pictures else options.n
    other = _given(generator, options.source, options, n, source, stream=SOURCE)
    search = {name: getattr(options, name) for name in ("seed", "starts", "steps")} | {
        "show_progress": options.progress
    }
    with results(options, "edited") as out, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotReached)  # the result says it
        edited = edit(
            generator,
            _found(generator, given, base if options.pictures else {}, search),
            options.module,
            source=_found(generator, other, source if options.source else {}, search),
            modules=modules,
            strength=options.strength,
            **search,
        )
        show(edited.save(out / "edited.safetensors"))
        show(save_figure(edited.plot(most=_SHOWN)[0], out / "edited.png"))
        show(edited)


def _given(
    generator: GeneratorAdapter,
    pictures: str | None,
    options: argparse.Namespace,
    n: int,
    conditions: dict[str, Any],
    *,
    stream: int,
) -> Any:
    """Pictures, or latents where none are given; what is wrong with the conditions is said now."""
    from ...editing.pictures import pictures_for

    if pictures is None:
        return generator.sample(n, seed=options.seed, stream=stream, **conditions)
    if conditions:
        generator.sample(1, **conditions)
        if hasattr(generator, "encode"):
            raise ProbeError(f"--classes is given, and {generator.name} encodes pictures as it sees them; leave it out")
    return pictures_for(generator, pictures, most=n, seed=options.seed)


def _found(generator: GeneratorAdapter, given: Any, conditions: dict[str, Any], search: dict[str, Any]) -> Any:
    """Pictures of a class with the latents that are found for them; anything else as it is."""
    from ...inversion.invert import inverted

    return inverted(generator, given, conditions=conditions, **search) if conditions else given
