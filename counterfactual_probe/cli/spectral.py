"""The command ``counterfactual-probe spectral``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.errors import ProbeError
from .common import common, file_name, generator_options, open_generator, save_figure, show
from .defaults import REMOVAL_DRAWS
from .options.output import results
from .options.values import count

if TYPE_CHECKING:
    from ..generator.adapter import GeneratorAdapter
    from ..generator.latents import Latents
    from ..spectral import ConvolutionPair, SpectralDependency, SpectralTable


def add_spectral(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command's parser."""
    parser = command(
        "spectral",
        _spectral,
        "spectral dependency ratios of a generator's successive convolutions",
        "spectral dcgan-faces --against partner",
    )
    generator_options(parser)
    parser.add_argument(
        "--against",
        metavar="partner|GENERATOR",
        help="also show the network that the generator was trained with, or another generator",
    )
    parser.add_argument(
        "--pair", metavar="EARLIER,LATER", help="convolutions whose kernels are shown, or removed (default: the finest)"
    )
    parser.add_argument(
        "--activations",
        type=count,
        metavar="N",
        help="also the ratios of every layer's activation maps, over N samples",
    )
    parser.add_argument(
        "--remove", type=count, metavar="N", help="N images with filters of low and of high ratio removed"
    )
    parser.add_argument("--draws", type=count, metavar="N", help=f"random controls for these (default {REMOVAL_DRAWS})")
    common(parser, "out/spectral", pairs=False)


def _spectral(options: argparse.Namespace) -> None:
    from ..spectral import SpectralDependency

    if options.draws is not None and options.remove is None:
        raise ProbeError(
            f"--draws {options.draws} is the number of controls for removed filters; give --remove N as well"
        )
    generator = open_generator(options.generator, options.device)
    sd = SpectralDependency(generator)
    pair = chosen_pair(sd, options.pair)
    other = None if options.against is None else _against(generator, options)
    own = file_name([generator.name])
    with results(options, f"table-{own}") as out:
        _measure(options, sd, generator, pair, other=other, out=out)


def _measure(
    options: argparse.Namespace,
    sd: SpectralDependency,
    generator: GeneratorAdapter,
    pair: tuple[str, str],
    *,
    other: SpectralDependency | None,
    out: Path,
) -> None:
    own = file_name([generator.name])
    table = sd.table(show_progress=options.progress)
    _write(table, out, own)
    against = None
    if other is not None:
        against = other.table(show_progress=options.progress)
        named = file_name([against.provenance["generator"]])
        # Two generators may have one name, and then neither replaces the other's table.
        _write(
            against, out, f"{own}-partner" if options.against == "partner" else named if named != own else f"{own}+2"
        )
    show(save_figure(table.plot(against=against)[0], out / "histograms.png"))
    name = file_name(pair)
    show(save_figure(sd.plot_kernels(*pair)[0], out / f"kernels-{name}.png"))
    if options.activations is not None:
        _activations(sd, generator, options, out)
    if options.remove is not None:
        _remove(sd, generator.sample(options.remove, seed=options.seed), pair, options, out)
    show(table)
    if against is not None:
        show(against)


def _remove(
    sd: SpectralDependency, latents: Latents, pair: tuple[str, str], options: argparse.Namespace, out: Path
) -> None:
    from ..base.files import write_json

    draws, name = REMOVAL_DRAWS if options.draws is None else options.draws, file_name(pair)
    removal = sd.remove_filters(*pair, latents, draws=draws, seed=options.seed)
    show(removal.save(out / f"removal-{name}.safetensors"))
    show(write_json(out / f"removal-{name}.json", {"rows": removal.rows(), "provenance": removal.provenance}))
    show(save_figure(removal.plot()[0], out / f"removal-{name}.png"))
    show(save_figure(removal.plot_measures()[0], out / f"removal-measures-{name}.png"))
    show(removal)


def chosen_pair(sd: SpectralDependency, given: str | None) -> tuple[str, str]:
    """The pair that is named, or the finest that skips nothing."""
    if given is None:
        pair = finest(sd.pairs())
        return pair.earlier, pair.later
    parts = tuple(given.split(","))
    if len(parts) != 2:
        raise ProbeError(f"--pair is {given!r}; give two convolutions, such as main.3,main.6")
    sd.pathways(*parts)  # now, and not after the table
    return parts


def finest(pairs: list[ConvolutionPair]) -> ConvolutionPair:
    """The last of those on the largest maps, without skips where there are others."""
    plain = [pair for pair in pairs if not pair.skip] or pairs
    return max(enumerate(plain), key=lambda item: (item[1].size[0] * item[1].size[1], item[0]))[1]


def _against(generator: GeneratorAdapter, options: argparse.Namespace) -> SpectralDependency:
    from ..spectral import SpectralDependency

    if options.against != "partner":
        return SpectralDependency(open_generator(options.against, options.device))
    if generator.partner is None:
        raise ProbeError(f"{generator.name} has no network that it was trained with; name a generator with --against")
    return SpectralDependency(generator.partner, name=f"{generator.name}'s partner")


def _activations(sd: SpectralDependency, generator: GeneratorAdapter, options: argparse.Namespace, out: Path) -> None:
    latents = generator.sample(options.activations, seed=options.seed)
    for layer in generator.layers:
        try:
            ratios = sd.measure_activations(layer, latents)
        except ProbeError as error:  # one layer of many: go on with the others
            show(f"left out: {error}")
            continue
        name = file_name([layer])
        show(ratios.save(out / f"activations-{name}.safetensors"))
        show(save_figure(ratios.plot()[0], out / f"activations-{name}.png"))
        show(f"{layer}: mean ratio of its maps {ratios.mean:.3f}, {ratios.dead} dead maps")


def _write(table: SpectralTable, out: Path, name: str) -> None:
    show(table.save(out / f"table-{name}.safetensors"))
    show(table.to_csv(out / f"table-{name}.csv"))
    show(table.write_json(out / f"table-{name}.json"))
