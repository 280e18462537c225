"""The command line: ``counterfactual-probe demo | list | influence | modules | hybridize | report | …``."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ..base.errors import ProbeError, visible
from ..version import __version__
from .common import (
    PAIRS,
    UNREAD,
    chosen_units,
    common,
    file_name,
    give_up,
    modules_of,
    open_generator,
    output_folder,
    require_none,
    save_figure,
    show,
    trust,
    unit_options,
)
from .defaults import FEATURES
from .fidelity import add_fidelity
from .invariance import add_invariance
from .options.swaps import axis_options, extent_arguments, unit_arguments
from .pages.explore import add_explore
from .report import add_report
from .robustness import add_robustness
from .spectral import add_spectral
from .train import add_train

if TYPE_CHECKING:
    import torch

    from ..influence.maps import InfluenceMaps


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; an error that the user can fix is one sentence on stderr and exit status 2."""
    try:
        typed = sys.argv[1:] if arguments is None else list(arguments)
        options = _parser().parse_args(typed, argparse.Namespace(typed=typed))
        options.run(options)
    except BrokenPipeError:  # whoever reads, such as head, has had enough
        give_up(sys.stdout)
        return UNREAD
    except KeyboardInterrupt as stop:
        return _failed(str(stop) or "interrupted", 130)
    except ProbeError as error:
        return _failed(str(error), 2)
    return 0


def _failed(sentence: str, status: int) -> int:
    with suppress(OSError, ProbeError):  # stderr may be closed, or full
        show(f"counterfactual-probe: {sentence}", to=sys.stderr)
    return status


def _list(options: argparse.Namespace) -> None:
    from ..base.plugins import blamed_on_plugin
    from ..registry.pretrained import available, clash_of, pretrained

    for name in available(options.pattern):
        if not options.verbose:
            problem = clash_of(name)
            show(name if problem is None else f"{name}: {problem}")
            continue
        try:
            with blamed_on_plugin(f"generator {name!r}"):
                card = pretrained(name).card()
        except ProbeError as error:  # one package's fault: those of others are listed all the same
            card = f"{name}: cannot be opened\n  reason: {error}"
        show(card)


def _influence(options: argparse.Namespace) -> None:
    maps = _attribute(options)
    if options.tolerance is not None:
        show(f"{len(maps) - len(maps.missed)} of {len(maps)} maps reached the tolerance of {options.tolerance:g}")
    name = f"maps-{file_name(maps.provenance['layers'])}"
    out = output_folder(options)
    show(maps.save(out / f"{name}.safetensors"))
    show(save_figure(maps.plot(most=len(maps))[0], out / f"{name}.png"))


def _modules(options: argparse.Namespace) -> None:
    import numpy as np

    from ..base.display.text import counted
    from ..base.files import write_json
    from ..generator.results import kind_of, units_to_json
    from ..influence.maps import InfluenceMaps
    from ..modules.confidence import CONFIDENT, ExpectedDisagreement
    from ..modules.finder import ModuleFinder
    from ..registry.naming import numbered_names, shown_regions
    from ..registry.segmentation import regions_of_name

    other = None
    if Path(options.generator).suffix == ".safetensors":
        for option in ("layer", "pairs", "device"):
            require_none(options, option, f"with maps from a file ({options.generator})")
        maps = InfluenceMaps.load(options.generator)
        other = InfluenceMaps.load(options.other) if options.other else None
    elif options.layer is None:
        raise ProbeError("no layer was named; give --layer, or a maps file made by 'influence'")
    else:
        require_none(options, "other", "with a generator, from which a second sample is taken anyway")
        maps = _attribute(options)
        # Modules are not worth showing without saying whether other latents would give the same.
        other = _attribute(options, seed=options.seed + 1, components=maps.components)
    finder = ModuleFinder(options.modules, options.method, features=options.features, seed=options.seed).fit(maps)
    regions = regions_of_name(maps.provenance["generator"], maps.maps.shape[1:])
    shows = [found.name for found in shown_regions(finder.templates_, regions)]
    finder.name_modules(numbered_names(shows))
    content: dict[str, Any] = {
        "modules": units_to_json(finder.unit_sets()),
        "labels": finder.labels_.tolist(),
        "shows": shows,
    }
    if maps.block_sums is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExpectedDisagreement)  # printed below
            confidence = finder.confidence_
        content["confidence"] = [None if np.isnan(value) else float(value) for value in confidence]
        content["expected_ari"] = finder.expected_ari_
        confident = int((confidence >= CONFIDENT).sum())
        show(f"{confident} of {len(confidence)} {kind_of(maps.provenance)}s have a confidence of {CONFIDENT:g} or more")
    if other is not None:
        stability = finder.stability(maps, n_modules=options.modules, repetitions=0, other=other)
        content["ari_between_draws"] = float(stability.ari[0]) if stability.ari is not None else None
    layer = file_name(maps.provenance["layers"])
    out = output_folder(options)
    show(write_json(out / f"modules-{layer}.json", content | {"provenance": maps.provenance}))
    show(save_figure(finder.plot()[0], out / f"templates-{layer}.png"))
    for units in finder.unit_sets():
        show(f"{units.name}: {counted(units.size, units.kind)}")
    show(trust(content))


def _hybridize(options: argparse.Namespace) -> None:
    from ..hybrids.hybridizer import Hybridizer

    generator = open_generator(options.generator, options.device)
    units, labels, layers = chosen_units(options)
    if options.modules_file:
        show(trust(modules_of(options.modules_file)))
    z1 = generator.sample(options.n, seed=options.seed)
    z2 = generator.sample(options.n, seed=options.seed, stream=1)
    hybridizer = Hybridizer(generator, layers, **unit_arguments(options))
    hybrids = hybridizer.hybridize(z1, z2, units=units, show_progress=options.progress, **extent_arguments(options))
    out, name = output_folder(options), f"hybrids-{file_name(layers)}"
    show(hybrids.save(out / f"{name}.safetensors"))
    show(save_figure(hybrids.plot(labels=labels)[0], out / f"{name}.png"))


def _attribute(
    options: argparse.Namespace, seed: int | None = None, components: torch.Tensor | None = None
) -> InfluenceMaps:
    from ..influence.components import COMPONENTS
    from ..influence.influence_map import InfluenceMap
    from ..modules.confidence import BLOCKS

    generator = open_generator(options.generator, options.device)
    influence = InfluenceMap(generator, options.layer, **unit_arguments(options))
    seed = options.seed if seed is None else seed
    tolerance = getattr(options, "tolerance", None)
    pairs = PAIRS if options.pairs is None else options.pairs
    more: dict[str, Any] = extent_arguments(options)
    if getattr(options, "features", None) == "l2":
        more["normalise"] = "pair"
    if getattr(options, "features", None) == "pca":
        more["components"] = COMPONENTS if components is None else components
    if hasattr(options, "features") and pairs >= 2 * BLOCKS:
        more["blocks"] = BLOCKS
    return influence.attribute(n_pairs=pairs, tolerance=tolerance, seed=seed, show_progress=options.progress, **more)


class _Parser(argparse.ArgumentParser):
    """argparse quotes some arguments as they are: names of files, by a wildcard, say."""

    def error(self, message: str) -> NoReturn:
        super().error(visible(message))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="counterfactual-probe",
        description="Open a pretrained image generator and find the parts it is made of.",
        epilog="GENERATOR is a name that 'list' shows, a folder, hf:user/repo, or package.module:factory, a function "
        "that returns counterfactual_probe.wrap(module, sample_latents).",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        made.set_defaults(run=run)
        return made

    listing = command("list", _list, "list the pretrained generators of the registry")
    listing.add_argument("pattern", nargs="?", default="*", help="a wildcard pattern, such as '*faces'")
    listing.add_argument("--verbose", action="store_true", help="with data, licence and how to install")

    influence = command("influence", _influence, "influence maps of every channel (or other unit) of a layer")
    influence.add_argument("generator", metavar="GENERATOR")
    influence.add_argument("--layer", required=True)
    influence.add_argument("--tolerance", type=float, help="stop each map at this relative standard error")
    axis_options(influence)
    common(influence, "out/influence")

    modules = command("modules", _modules, "modules of a layer, from a generator or a file of influence maps")
    modules.add_argument("generator", metavar="GENERATOR|MAPS.safetensors")
    modules.add_argument("--layer")
    modules.add_argument("--modules", type=int, default=3, help="number of modules K (default 3)")
    modules.add_argument(
        "--other", metavar="MAPS.safetensors", help="maps of another sample of latents, to compare with"
    )
    modules.add_argument(
        "--features",
        choices=FEATURES,
        default="bits",
        help="bits, as in the papers; l2, reproducible with fewer pairs; pca, for images without spatial alignment",
    )
    modules.add_argument("--method", choices=["nmf", "kmeans"], default="nmf")
    axis_options(modules)
    common(modules, "out/modules")
    modules.set_defaults(pairs=None)  # so that maps from a file can refuse it

    hybridize = command("hybridize", _hybridize, "hybrids of random pairs, by channels or by modules")
    hybridize.add_argument("generator", metavar="GENERATOR")
    unit_options(hybridize)
    hybridize.add_argument("-n", type=int, default=8, help="number of pairs (default 8)")
    axis_options(hybridize)
    common(hybridize, "out/hybrids", pairs=False)

    add_explore(command)
    add_fidelity(command)
    add_invariance(command)
    add_report(command)
    add_robustness(command)
    add_spectral(command)
    add_train(command)
    return parser


if __name__ == "__main__":
    sys.exit(main())
