"""The command line: ``counterfactual-probe demo | list | influence | modules | hybridize | report | …``."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from .blame import blamed_on
from .cli_robustness import add_robustness
from .cli_train import add_train
from .components import COMPONENTS
from .confidence import BLOCKS, SURE, ExpectedDisagreement
from .errors import ProbeError, first_line
from .features import Kind
from .files import read_bytes, write_bytes, write_json
from .folders import HUB, is_folder
from .generator import GeneratorAdapter
from .hybrids import Hybridizer
from .influence import InfluenceMap
from .maps import InfluenceMaps
from .modules import ModuleFinder
from .regions import generic_regions
from .registry import available, load, pretrained
from .results import units_from_json, units_to_json
from .version import __version__

DEMO = "dcgan-faces"
PAIRS = 64


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; errors the user can mend are one sentence on stderr and exit status 2."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except KeyboardInterrupt as stop:
        print(f"counterfactual-probe: {str(stop) or 'interrupted'}", file=sys.stderr)
        return 130
    except ProbeError as error:
        print(f"counterfactual-probe: {error}", file=sys.stderr)
        return 2
    return 0


def open_generator(name: str, device: str | None) -> GeneratorAdapter:
    """A generator that ``load`` knows, or from ``package.module:factory``, called without arguments."""
    if ":" not in name or name.startswith(HUB) or is_folder(name):
        return load(name, device=device)
    module_name, _, factory_name = name.partition(":")
    with _importing_from(str(Path.cwd())):  # the user's own module, in the folder they stand in
        with blamed_on(f"importing {module_name!r}", "run it in Python by itself to see why"):
            try:
                factory = getattr(importlib.import_module(module_name), factory_name)
            except (ImportError, AttributeError, ValueError) as error:
                raise ProbeError(f"{name!r} cannot be imported ({error}); give package.module:factory") from error
        with blamed_on(f"the factory {name!r}", "call it in Python by itself, without arguments, to see why"):
            generator = factory()
    if not isinstance(generator, GeneratorAdapter):
        raise ProbeError(
            f"{name!r} returned a {type(generator).__name__}; let the factory return cp.wrap(module, sample_latents)"
        )
    if device is not None and _device(device) != generator.device:
        raise ProbeError(f"{name!r} made a generator on {generator.device} and --device is {device}; let it use that")
    return generator


def _device(name: str) -> torch.device:
    """The device that tensors made on this name are on: 'cuda' is the current one of several."""
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ProbeError(f"--device is {name}, which cannot be used here ({first_line(error)}); try cpu") from error


@contextmanager
def _importing_from(folder: str) -> Iterator[None]:
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        if folder in sys.path:  # by value: what runs inside may have changed the list
            sys.path.remove(folder)


def _list(options: argparse.Namespace) -> None:
    for name in available(options.pattern):
        print(pretrained(name).card() if options.verbose else name)


def _influence(options: argparse.Namespace) -> None:
    maps = _attribute(options)
    if options.tolerance is not None:
        print(f"{len(maps) - len(maps.missed)} of {len(maps)} maps reached the tolerance of {options.tolerance:g}")
    name = f"maps-{_file_name(maps.provenance['layers'])}"
    out = Path(options.out)
    print(maps.save(out / f"{name}.safetensors"))
    print(_save_figure(maps.plot(most=len(maps))[0], out / f"{name}.png"))


def _modules(options: argparse.Namespace) -> None:
    other = None
    if Path(options.generator).suffix == ".safetensors":
        for option in ("layer", "pairs", "device"):
            _require_none(options, option, f"with maps from a file ({options.generator})")
        maps = InfluenceMaps.load(options.generator)
        other = InfluenceMaps.load(options.other) if options.other else None
    elif options.layer is None:
        raise ProbeError("no layer was named; give --layer, or a maps file made by 'influence'")
    else:
        _require_none(options, "other", "with a generator, of which a second draw is made anyway")
        maps = _attribute(options)
        # Modules are not worth showing without saying whether other latents would give the same.
        other = _attribute(options, seed=options.seed + 1, components=maps.components)
    finder = ModuleFinder(options.modules, options.method, features=options.features, seed=options.seed).fit(maps)
    content: dict[str, Any] = {"modules": units_to_json(finder.unit_sets()), "labels": finder.labels_.tolist()}
    if maps.block_sums is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExpectedDisagreement)  # printed below
            kept = finder.confidence_
        content["confidence"] = [None if np.isnan(value) else float(value) for value in kept]
        content["expected_ari"] = finder.expected_ari_
        print(f"{int((kept >= SURE).sum())} of {len(kept)} channels are sure of their module (confidence {SURE:g})")
    if other is not None:
        stability = finder.stability(maps, n_modules=options.modules, repetitions=0, other=other)
        content["ari_between_draws"] = float(stability.ari[0]) if stability.ari is not None else None
    layer = _file_name(maps.provenance["layers"])
    out = Path(options.out)
    print(write_json(out / f"modules-{layer}.json", content | {"provenance": maps.provenance}))
    print(_save_figure(finder.plot()[0], out / f"templates-{layer}.png"))
    for k, units in enumerate(finder.unit_sets(), 1):
        print(f"module {k}: {units.size} channels")
    print(_trust(content))


def _trust(content: dict[str, Any]) -> str:
    from .wording import ari_words

    ari = content.get("ari_between_draws", content.get("agreement_between_draws", {}).get("ari"))
    if ari is None and (expected := content.get("expected_ari")) is not None:
        return f"another draw of latents is expected to give {ari_words(expected)} (adjusted Rand index {expected:.2f})"
    if ari is None:
        return "how far to trust these modules is unknown: give --other, maps of another draw of latents"
    return f"two draws of latents give {ari_words(ari)} (adjusted Rand index {ari:.2f})"


def _hybridize(options: argparse.Namespace) -> None:
    generator = open_generator(options.generator, options.device)
    if (options.units is None) == (options.modules_file is None):
        raise ProbeError("which channels to set is not clear; give either --units or --modules-file")
    units: Any
    labels = None
    if options.modules_file:
        _require_none(options, "layer", "with --modules-file, which names the layers")
        content = _modules_of(options.modules_file)
        numbered = [(k, item) for k, item in enumerate(content["modules"], 1) if any(item.values())]
        units, labels = [item for _, item in numbered], [f"module {k}" for k, _ in numbered]
        print(_trust(content))
        layers = list(dict.fromkeys(layer for item in units for layer in item))
    else:
        if options.layer is None:
            raise ProbeError("no layer was named; give --layer with --units")
        units, layers = [_numbers(group) for group in options.units.split(";")], [options.layer]
    z1 = generator.sample(options.n, seed=options.seed)
    z2 = generator.sample(options.n, seed=options.seed, stream=1)
    hybrids = Hybridizer(generator, layers).hybridize(z1, z2, units=units, show_progress=options.progress)
    out, name = Path(options.out), f"hybrids-{_file_name(layers)}"
    print(hybrids.save(out / f"{name}.safetensors"))
    print(_save_figure(hybrids.plot(labels=labels)[0], out / f"{name}.png"))


def _report(options: argparse.Namespace) -> None:
    from .report import require_writable, write_report
    from .study import Settings, run_study, study_layers
    from .wording import summary

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    generator = open_generator(options.generator, options.device)
    entry = pretrained(options.generator) if ":" not in options.generator else None
    settings = Settings(options.pairs, options.modules, options.seed, repetitions=options.repetitions)
    layers = study_layers(generator, options.layers.split(",") if options.layers else None, settings, say)
    out = Path(options.out)
    require_writable(out)
    names = [info.name for info in layers]
    study = run_study(generator, names, settings=settings, show_progress=options.progress, say=say)
    say("writing the report")
    regions = entry.regions() if entry and entry.regions else generic_regions(*generator.image_size[1:])
    report = write_report(study, out, regions=regions, card=entry.card() if entry else None)
    tensors = sum(path.suffix == ".safetensors" for path in report.results)
    print("\n".join(summary(study, regions)))
    print(f"report:  {report.page}")
    print(f"figures: {out / 'figures'} ({len(report.figures)} PNG files)")
    print(f"results: {out} ({tensors} safetensors files, modules as JSON)")


def _attribute(
    options: argparse.Namespace, seed: int | None = None, components: torch.Tensor | None = None
) -> InfluenceMaps:
    generator = open_generator(options.generator, options.device)
    influence = InfluenceMap(generator, options.layer)
    seed = options.seed if seed is None else seed
    tolerance = getattr(options, "tolerance", None)
    pairs = PAIRS if options.pairs is None else options.pairs
    more: dict[str, Any] = {}
    if getattr(options, "features", None) == "l2":
        more["normalise"] = "pair"
    if getattr(options, "features", None) == "pca":
        more["components"] = COMPONENTS if components is None else components
    if hasattr(options, "features") and pairs >= 2 * BLOCKS:
        more["blocks"] = BLOCKS
    return influence.attribute(n_pairs=pairs, tolerance=tolerance, seed=seed, show_progress=options.progress, **more)


def _modules_of(path: str) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(read_bytes(path))
        units_from_json(content["modules"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ProbeError(f"{path} holds no modules; give a file made by 'modules' or 'report'") from error
    return content


def _numbers(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise ProbeError(f"units are {text!r}; give channel numbers, such as 3,17,40 or 3,17;40 for two sets") from None


def _save_figure(figure: Any, path: Path) -> Path:
    from .plots import png

    return write_bytes(path, png(figure, dpi=120))


def _file_name(layers: Sequence[str]) -> str:
    from .figures import file_name

    return "+".join(map(file_name, layers))


def _require_none(options: argparse.Namespace, option: str, why: str) -> None:
    if getattr(options, option) is not None:
        raise ProbeError(f"--{option} is given {why}; leave it out")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
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

    influence = command("influence", _influence, "influence maps of every channel of a layer")
    influence.add_argument("generator", metavar="GENERATOR")
    influence.add_argument("--layer", required=True)
    influence.add_argument("--tolerance", type=float, help="stop each map at this relative standard error")
    _common(influence, "out/influence")

    modules = command("modules", _modules, "modules of a layer, from a generator or a file of influence maps")
    modules.add_argument("generator", metavar="GENERATOR|MAPS.safetensors")
    modules.add_argument("--layer")
    modules.add_argument("--modules", type=int, default=3, help="number of modules K (default 3)")
    modules.add_argument("--other", metavar="MAPS.safetensors", help="maps of another draw, to compare with")
    modules.add_argument(
        "--features",
        choices=get_args(Kind),
        default="bits",
        help="as in the papers, the variant that comes back sooner, or for images without spatial alignment",
    )
    modules.add_argument("--method", choices=["nmf", "kmeans"], default="nmf")
    _common(modules, "out/modules")
    modules.set_defaults(pairs=None)  # so that maps from a file can refuse it

    hybridize = command("hybridize", _hybridize, "hybrids of random pairs, by channels or by modules")
    hybridize.add_argument("generator", metavar="GENERATOR")
    hybridize.add_argument("--layer")
    hybridize.add_argument("--units", help="channels of the layer, such as 3,17,40; sets apart by ';'")
    hybridize.add_argument("--modules-file", help="a JSON file made by 'modules' or 'report'")
    hybridize.add_argument("-n", type=int, default=8, help="number of pairs (default 8)")
    _common(hybridize, "out/hybrids", pairs=False)

    for name, text in (
        ("report", "influence maps, modules, stability and hybrids of a generator, as an HTML report"),
        ("demo", f"the report on the pretrained face generator {DEMO}"),
    ):
        made = command(name, _report, text)
        if name == "report":
            made.add_argument("generator", metavar="GENERATOR")
        else:
            made.set_defaults(generator=DEMO)
        made.add_argument("--layers", help="names, apart by commas (default: the last of each resolution)")
        made.add_argument("--modules", type=int, default=3, help="number of modules K (default 3)")
        made.add_argument("--repetitions", type=int, default=10, help="of the stability analysis (default 10)")
        _common(made, f"out/{name}")
    add_robustness(command)
    add_train(command)
    return parser


def _common(parser: argparse.ArgumentParser, out: str, *, pairs: bool = True) -> None:
    if pairs:
        parser.add_argument("--pairs", type=int, default=PAIRS, help=f"pairs of latents per map (default {PAIRS})")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", help="where to run, such as cpu or cuda:0 (default: where it was made)")
    parser.add_argument("--out", default=out, help=f"folder to write into (default {out})")
    parser.add_argument("--no-progress", dest="progress", action="store_false", help="no progress bars on stderr")


if __name__ == "__main__":
    sys.exit(main())
