"""The command ``counterfactual-probe robustness``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ..base.errors import ProbeError
from ..registry.pretrained import available, pretrained
from .common import GENERATOR, PAIRS, common, device_option, made_by, modules_of, open_generator, show
from .defaults import ROBUSTNESS_HYBRIDS
from .options.layers import layers_option
from .options.modules import require_modules_of
from .options.output import results
from .options.values import class_of, count

if TYPE_CHECKING:
    from ..classifiers import Classifier
    from ..generator.adapter import GeneratorAdapter
    from ..robustness import RobustnessProbe

Classes: TypeAlias = "tuple[int | str, int | str]"
ClassMap: TypeAlias = "dict[int | str, list[int | str]]"


def add_robustness(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command's parser."""
    parser = command(
        "robustness",
        _robustness,
        "how robust classifiers are to hybrids of two classes, as an HTML page",
        "robustness --generator cdcgan-eyes --classifier ./my-classifier --classes male female",
    )
    parser.add_argument(
        "--generator",
        required=True,
        metavar="GENERATOR",
        type=os.path.expanduser,
        help=f"one whose latents have classes: {GENERATOR}",
    )
    judge_options(parser, required=True)
    layers_option(parser)
    parser.add_argument("--modules", type=count, help="number of modules K of each layer (default 3)")
    parser.add_argument(
        "--modules-file",
        nargs="+",
        metavar="FILE",
        type=os.path.expanduser,
        help="JSON files made by 'modules' or 'report', instead of --layers",
    )
    parser.add_argument(
        "--hybrids",
        type=count,
        help=f"how many, roughly, for the influence maps of each layer (default {ROBUSTNESS_HYBRIDS}): the more "
        "channels, the fewer pairs",
    )
    parser.add_argument("--pairs", type=count, default=PAIRS, help=f"pairs of latents to score (default {PAIRS})")
    device_option(parser)
    common(parser, "out/robustness", pairs=False)


def judge_options(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Classifiers, and the classes whose hybrids they see."""
    where = "" if required else "for --sections robustness: "
    parser.add_argument(
        "--classifier",
        required=required,
        nargs="+",
        metavar="CLASSIFIER",
        help=f"{where}of the registry, any name of timm, a folder, or package.module:factory, which returns "
        "cp.Classifier(...)",
    )
    parser.add_argument(
        "--classes", required=required, nargs=2, metavar=("BASE", "SOURCE"), help=f"{where}names or numbers"
    )
    parser.add_argument(
        "--class-map",
        action="append",
        default=[],
        metavar="CLASS=NAME,NAME",
        help=f"{where}what classifiers call a class of the generator (default: the same), once for each class",
    )


def _robustness(options: argparse.Namespace) -> None:
    from ..reporting.sections.robustness import pairs_of_classes
    from ..robustness import RobustnessProbe

    classes, class_map = chosen_classes(options)
    generator = open_generator(options.generator, options.device)
    pairs_of_classes(generator, classes, 1, options.seed)  # a class that is none is said now
    for layer in options.layers or ():
        generator.layer(layer)
    with results(options, "robustness") as out:
        classifiers = [open_classifier(name, options.device) for name in options.classifier]
        probe = RobustnessProbe(generator, classifiers)
        probe.require(classes, class_map)
        _score(options, probe, classes, class_map, out)


def _score(
    options: argparse.Namespace, probe: RobustnessProbe, classes: Classes, class_map: ClassMap | None, out: Path
) -> None:
    from ..base.display.text import counted
    from ..reporting.sections.robustness import pairs_of_classes, robustness_sentences, write_robustness_page

    generator = probe.generator
    units = _units(generator, options, classes)
    z1, z2 = pairs_of_classes(generator, classes, options.pairs, options.seed)
    judges = counted(len(options.classifier), "classifier")
    show(f"scoring {judges} on {counted(sum(map(len, units.values())), 'module')}", to=sys.stderr)
    result = probe.score(
        z1,
        z2,
        units_by_layer=units,
        classes=classes,
        class_map=class_map,
        seed=options.seed,
        show_progress=options.progress,
    )
    card = pretrained(options.generator).card() if options.generator in available() else None
    page = write_robustness_page(result, out, card=card)
    show(result.ranking())
    show("\n".join(robustness_sentences(result, result.ranking())))
    show(page)


def open_classifier(name: str, device: str | None) -> Classifier:
    """A classifier that ``load_classifier`` knows, or from ``package.module:factory``, called without arguments."""
    from ..base.hub.address import HUB
    from ..classifiers import Classifier, load_classifier
    from ..classifiers.timm_models import PREFIX
    from ..registry.folders import is_folder

    if ":" not in name or name.startswith((HUB, PREFIX)) or is_folder(name):
        return load_classifier(name, device=device)
    made = made_by(name)
    if not isinstance(made, Classifier):
        raise ProbeError(
            f"{name!r} returned a {type(made).__name__}; let the factory return cp.Classifier(module, transform)"
        )
    return made


def _units(generator: GeneratorAdapter, options: argparse.Namespace, classes: tuple[Any, Any]) -> dict[str, Any]:
    """Modules from files, or found with other latents than those that are scored."""
    from ..reporting.choice import default_layers
    from ..reporting.sections.robustness import pairs_of_classes
    from ..robustness.finding import modules_by_layer

    if options.modules_file:
        for option in ("layers", "modules", "hybrids"):
            if getattr(options, option) is not None:
                raise ProbeError(f"--{option} is given with --modules-file, which holds the modules; leave it out")
        for path in options.modules_file:
            require_modules_of(generator, path)
        return _from_files(options.modules_file)
    hybrids = ROBUSTNESS_HYBRIDS if options.hybrids is None else options.hybrids
    n_modules = 3 if options.modules is None else options.modules
    layers = options.layers or default_layers(generator)
    if not options.layers:
        layers = [name for name in layers if generator.layer(name).channels >= n_modules]
    most = max(2, max((hybrids // generator.layer(name).channels for name in layers), default=2))
    z1, z2 = pairs_of_classes(generator, classes, min(most, 256), options.seed + 1)
    return modules_by_layer(
        generator, z1, z2, layers=layers, n_modules=n_modules, hybrids=hybrids, show_progress=options.progress
    )


def _from_files(paths: list[str]) -> dict[str, Any]:
    """{layers of the file: {module: units}}."""
    from ..registry.modules import sets_of

    by_layer: dict[str, Any] = {}
    for path in paths:
        modules = {str(k): item.placed() for k, item in enumerate(sets_of(modules_of(path), path), 1) if item.size}
        label = "+".join(dict.fromkeys(layer for item in modules.values() for layer in item))
        if label in by_layer:
            raise ProbeError(f"two files of modules are of {label!r}; give one of each layer")
        by_layer[label] = modules
    return by_layer


def chosen_classes(options: argparse.Namespace) -> tuple[Classes, ClassMap | None]:
    """``--classes`` and ``--class-map``: the generator's two classes, and what classifiers call them."""
    first, second = map(class_of, options.classes)
    class_map: ClassMap = {}
    for text in options.class_map:
        name, equals, classes = text.partition("=")
        if not equals or not name or not classes:
            raise ProbeError(f"--class-map is {text!r}; give CLASS=NAME,NAME, such as teddy='teddy bear'")
        class_map[class_of(name)] = [class_of(part.strip()) for part in classes.split(",")]
    return (first, second), class_map or None
