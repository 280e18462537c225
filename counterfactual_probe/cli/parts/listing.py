"""The commands ``counterfactual-probe list`` and ``layers``: what can be named on the command line."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ...base.errors import ProbeError
from ..common import NOTHING, generator_options, open_generator, show

if TYPE_CHECKING:
    from ...generator.layers import LayerInfo


def add_listing(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the parsers of both commands."""
    listing = command("list", _list, "list the pretrained generators of the registry", "list 'dcgan*' --verbose")
    listing.add_argument("pattern", nargs="?", default="*", help="a wildcard pattern, such as 'dcgan*' (default: all)")
    listing.add_argument("--verbose", action="store_true", help="with data, licence and how to install")
    listing.add_argument("--json", action="store_true", help="as JSON: a list of objects, one for each generator")
    layers = command("layers", _layers, "list the layers of a generator", "layers dcgan-faces")
    generator_options(layers)
    layers.add_argument("--json", action="store_true", help="as JSON: a list of objects, one for each layer")


def _list(options: argparse.Namespace) -> int | None:
    from ...registry.pretrained import available

    records = [_record(name, verbose=options.verbose) for name in available(options.pattern)]
    if options.json:
        show(json.dumps(records, indent=1, ensure_ascii=False))
    for record in records if not options.json else ():
        show(_line(record))
    if records:
        return None
    show(f"no generator matches {options.pattern!r}; 'counterfactual-probe list' lists all", to=sys.stderr)
    return NOTHING


def _record(name: str, *, verbose: bool) -> dict[str, Any]:
    """A generator's name, what is wrong with it, and its card where that is asked for."""
    from ...base.plugins import blamed_on_plugin
    from ...registry.pretrained import clash_of, pretrained

    if not verbose:
        return {"name": name, "problem": clash_of(name)}
    try:
        with blamed_on_plugin(f"generator {name!r}"):
            return {"name": name, "problem": None, "card": pretrained(name).card()}
    except ProbeError as error:  # one package's fault: those of others are listed all the same
        return {"name": name, "problem": str(error), "card": None}


def _line(record: dict[str, Any]) -> str:
    name, problem = record["name"], record["problem"]
    if "card" not in record:
        return str(name) if problem is None else f"{name}: {problem}"
    return str(record["card"] or f"{name}: cannot be opened\n  reason: {problem}")


def _layers(options: argparse.Namespace) -> None:
    from ...base.display.text import aligned

    generator = open_generator(options.generator, options.device)
    infos = [generator.layer(name) for name in generator.layers]
    if options.json:
        show(json.dumps([_as_json(info) for info in infos], indent=1, ensure_ascii=False))
        return
    rows = [("layer", "channels", "size", "calls")]
    rows += [(info.name, str(info.channels), "×".join(map(str, info.size)) or "–", str(info.calls)) for info in infos]
    show("\n".join(aligned(rows)))


def _as_json(info: LayerInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "channels": info.channels,
        "size": list(info.size),
        "axes": info.axes,
        "calls": info.calls,
    }
