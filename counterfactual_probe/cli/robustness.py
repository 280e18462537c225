"""The command ``counterfactual-probe robustness``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.errors import ProbeError
from ..registry.pretrained import available, pretrained
from .common import PAIRS, made_by, modules_of, open_generator
from .defaults import ROBUSTNESS_HYBRIDS

if TYPE_CHECKING:
    from ..classifiers import Classifier
    from ..generator.adapter import GeneratorAdapter
    from ..generator.latents import Latents


def add_robustness(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command's parser."""
    parser = command("robustness", _robustness, "how robust classifiers are to hybrids of two classes, as an HTML page")
    parser.add_argument("--generator", required=True, metavar="GENERATOR", help="one whose latents have classes")
    parser.add_argument(
        "--classifier",
        required=True,
        nargs="+",
        metavar="CLASSIFIER",
        help="of the registry, any name of timm, a folder, or package.module:factory, which returns cp.Classifier(...)",
    )
    parser.add_argument("--classes", required=True, nargs=2, metavar=("BASE", "SOURCE"), help="names or numbers")
    parser.add_argument(
        "--class-map",
        action="append",
        default=[],
        metavar="CLASS=NAME,NAME",
        help="what classifiers call a class of the generator (default: the same), once for each class",
    )
    parser.add_argument("--layers", help="names, apart by commas, early to late (default: the last of each resolution)")
    parser.add_argument("--modules", type=int, help="number of modules K of each layer (default 3)")
    parser.add_argument(
        "--modules-file",
        nargs="+",
        metavar="FILE",
        help="JSON files made by 'modules' or 'report', instead of --layers",
    )
    parser.add_argument(
        "--hybrids",
        type=int,
        help=f"about so many for the influence maps of each layer (default {ROBUSTNESS_HYBRIDS}): fewer pairs for more "
        "channels",
    )
    parser.add_argument("--pairs", type=int, default=PAIRS, help=f"pairs of latents to score (default {PAIRS})")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", help="where to run, such as cpu or cuda:0 (default: where it was made)")
    parser.add_argument("--out", default="out/robustness", help="folder to write into (default out/robustness)")
    parser.add_argument("--no-progress", dest="progress", action="store_false", help="no progress bars on stderr")


def _robustness(options: argparse.Namespace) -> None:
    from ..reporting.page import require_writable
    from ..reporting.robustness import in_short, write_robustness_page
    from ..robustness import RobustnessProbe

    generator = open_generator(options.generator, options.device)
    classifiers = [open_classifier(name, options.device) for name in options.classifier]
    first, second = map(_class, options.classes)
    class_map = _class_map(options.class_map)
    out = Path(options.out)
    require_writable(out)
    probe = RobustnessProbe(generator, classifiers)
    units = _units(generator, options, (first, second))
    z1, z2 = _pairs(generator, (first, second), options.pairs, options.seed)
    print(f"scoring {len(classifiers)} classifiers on {sum(map(len, units.values()))} modules", file=sys.stderr)
    result = probe.score(
        z1,
        z2,
        units_by_layer=units,
        classes=(first, second),
        class_map=class_map,
        seed=options.seed,
        show_progress=options.progress,
    )
    card = pretrained(options.generator).card() if options.generator in available() else None
    page = write_robustness_page(result, out, card=card)
    print(result.ranking())
    print("\n".join(in_short(result, result.ranking())))
    print(page)


def open_classifier(name: str, device: str | None) -> Classifier:
    """A classifier that ``load_classifier`` knows, or from ``package.module:factory``, called without arguments."""
    from ..classifiers import Classifier, load_classifier
    from ..classifiers.timm_models import PREFIX
    from ..registry.folders import HUB, is_folder

    if ":" not in name or name.startswith((HUB, PREFIX)) or is_folder(name):
        return load_classifier(name, device=device)
    found = made_by(name)
    if not isinstance(found, Classifier):
        raise ProbeError(
            f"{name!r} returned a {type(found).__name__}; let the factory return cp.Classifier(module, transform)"
        )
    return found


def _units(generator: GeneratorAdapter, options: argparse.Namespace, classes: tuple[Any, Any]) -> dict[str, Any]:
    """Modules from files, or found here: with other latents than those that are scored."""
    from ..reporting.study import default_layers
    from ..robustness.finding import modules_by_layer

    if options.modules_file:
        for option in ("layers", "modules", "hybrids"):
            if getattr(options, option) is not None:
                raise ProbeError(f"--{option} is given with --modules-file, which holds the modules; leave it out")
        return _from_files(options.modules_file)
    hybrids = ROBUSTNESS_HYBRIDS if options.hybrids is None else options.hybrids
    n_modules = 3 if options.modules is None else options.modules
    layers = options.layers.split(",") if options.layers else default_layers(generator)
    if not options.layers:
        layers = [name for name in layers if generator.layer(name).channels >= n_modules]
    most = max(2, max((hybrids // generator.layer(name).channels for name in layers), default=2))
    z1, z2 = _pairs(generator, classes, min(most, 256), options.seed + 1)
    return modules_by_layer(
        generator, z1, z2, layers=layers, n_modules=n_modules, hybrids=hybrids, show_progress=options.progress
    )


def _from_files(paths: list[str]) -> dict[str, Any]:
    """{layers of the file: {module: units}}."""
    found: dict[str, Any] = {}
    for path in paths:
        sets = [{layer: own for layer, own in item.items() if own} for item in modules_of(path)["modules"]]
        modules = {str(k): item for k, item in enumerate(sets, 1) if item}
        label = "+".join(dict.fromkeys(layer for item in modules.values() for layer in item))
        if label in found:
            raise ProbeError(f"two files of modules are of {label!r}; give one of each layer")
        found[label] = modules
    return found


def _pairs(generator: GeneratorAdapter, classes: tuple[Any, Any], n: int, seed: int) -> tuple[Latents, Latents]:
    """Bases of the first class and sources of the second."""
    drawn = []
    for stream, own in enumerate(classes):
        try:
            drawn.append(generator.sample(n, seed=seed, stream=stream, classes=own))
        except ProbeError as error:
            if not isinstance(error.__cause__, TypeError):
                raise
            raise ProbeError(
                f"{generator.name} takes no classes ({error.__cause__}); give a conditional generator, whose "
                "sample_latents(n, rng, classes=None) draws latents of a class"
            ) from error
    return drawn[0], drawn[1]


def _class(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def _class_map(given: list[str]) -> dict[int | str, list[int | str]] | None:
    found: dict[int | str, list[int | str]] = {}
    for text in given:
        name, equals, classes = text.partition("=")
        if not equals or not name or not classes:
            raise ProbeError(f"--class-map is {text!r}; give CLASS=NAME,NAME, such as teddy='teddy bear'")
        found[_class(name)] = [_class(part.strip()) for part in classes.split(",")]
    return found or None
