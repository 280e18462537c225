"""The command ``counterfactual-probe modules``."""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...base.errors import ProbeError
from ..common import PAIRS, common, device_option, file_name, require_none, save_figure, show, trust
from ..defaults import COMPONENTS, FEATURES
from ..options.layers import layer_option
from ..options.output import results
from ..options.swaps import axis_options
from ..options.values import count
from .influence import measurement

if TYPE_CHECKING:
    from ...influence.maps import InfluenceMaps
    from ...modules.finder import ModuleFinder


def add_modules(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command's parser."""
    parser = command(
        "modules",
        _modules,
        "modules of a layer, from a generator or a file of influence maps",
        "modules dcgan-faces --layer main.8 --features l2",
    )
    parser.add_argument(
        "generator",
        metavar="GENERATOR|MAPS.safetensors",
        type=os.path.expanduser,
        help="a generator, or a file made by 'influence'",
    )
    device_option(parser)
    layer_option(parser)
    parser.add_argument("--modules", type=count, default=3, help="number of modules K (default 3)")
    parser.add_argument(
        "--other",
        type=os.path.expanduser,
        metavar="MAPS.safetensors",
        help="maps of another sample of latents, to compare with",
    )
    parser.add_argument(
        "--features",
        choices=FEATURES,
        default="bits",
        help="bits, as in the papers; l2, reproducible with fewer pairs; pca, for images without spatial alignment "
        "(default bits)",
    )
    parser.add_argument("--method", choices=["nmf", "kmeans"], default="nmf", help="how maps are grouped (default nmf)")
    axis_options(parser)
    common(parser, "out/modules")
    parser.set_defaults(pairs=None)  # so that maps from a file can refuse it


def _modules(options: argparse.Namespace) -> None:
    if Path(options.generator).suffix == ".safetensors":
        maps, other = _read(options)
        with results(options, f"modules-{file_name(maps.provenance['layers'])}") as out:
            _write(options, maps, other, out)
        return
    if options.layer is None:
        raise ProbeError("no layer was named; give --layer, or a maps file made by 'influence'")
    require_none(options, "other", "with a generator, from which a second sample is taken anyway")
    attribute = measurement(options)
    with results(options, f"modules-{file_name([options.layer])}") as out:
        maps = _attribute(attribute, options)
        # Modules are not worth showing without saying whether other latents would give the same.
        other = _attribute(attribute, options, seed=options.seed + 1)
        _write(options, maps, other, out)


def _read(options: argparse.Namespace) -> tuple[InfluenceMaps, InfluenceMaps | None]:
    from ...influence.maps import InfluenceMaps

    for option in ("layer", "pairs", "device"):
        require_none(options, option, f"with maps from a file ({options.generator})")
    maps = InfluenceMaps.load(options.generator)
    return maps, InfluenceMaps.load(options.other) if options.other else None


def _attribute(attribute: Callable[..., InfluenceMaps], options: argparse.Namespace, **more: Any) -> InfluenceMaps:
    """Maps with all that the features and their confidence need."""
    from ...modules.confidence import BLOCKS

    if options.features == "l2":
        more["normalise"] = "pair"
    if options.features == "pca":
        more["components"] = COMPONENTS
    if (PAIRS if options.pairs is None else options.pairs) >= 2 * BLOCKS:
        more["blocks"] = BLOCKS
    return attribute(**more)


def _write(options: argparse.Namespace, maps: InfluenceMaps, other: InfluenceMaps | None, out: Path) -> None:
    from ...base.display.text import counted
    from ...base.files import write_json
    from ...generator.results import kind_of, units_to_json
    from ...modules.finder import ModuleFinder
    from ...registry.naming import numbered_names, shown_regions
    from ...registry.segmentation import regions_of_name

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
        content |= _confidence(finder, kind_of(maps.provenance))
    if other is not None:
        stability = finder.stability(maps, n_modules=options.modules, repetitions=0, other=other)
        content["ari_between_draws"] = float(stability.ari[0]) if stability.ari is not None else None
    layer = file_name(maps.provenance["layers"])
    show(write_json(out / f"modules-{layer}.json", content | {"provenance": maps.provenance}))
    show(save_figure(finder.plot()[0], out / f"templates-{layer}.png"))
    for units in finder.unit_sets():
        show(f"{units.name}: {counted(units.size, units.kind)}")
    show(trust(content))


def _confidence(finder: ModuleFinder, kind: str) -> dict[str, Any]:
    import numpy as np

    from ...modules.confidence import CONFIDENT, ExpectedDisagreement

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExpectedDisagreement)  # printed below
        confidence = finder.confidence_
    confident = int((confidence >= CONFIDENT).sum())
    show(f"{confident} of {len(confidence)} {kind}s have a confidence of {CONFIDENT:g} or more")
    return {
        "confidence": [None if np.isnan(value) else float(value) for value in confidence],
        "expected_ari": finder.expected_ari_,
    }
