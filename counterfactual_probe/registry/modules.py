"""Modules in the files that commands, reports and pushed generators hold: unit sets, each under its name."""

from __future__ import annotations

import os
from typing import Any

from ..base.errors import ProbeError, first_line
from ..base.files import read_json
from ..base.formats.schema import conform
from ..base.hub.client import local_file
from ..generator.adapter import GeneratorAdapter
from ..generator.results import ModulesFile, kind_of, units_from_json
from ..generator.units import UnitSet
from .naming import numbered_names

MODULES = "modules.json"  # of a generator's folder or repository


def read_modules(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of a file of modules, on this machine or on the hub."""
    try:
        content: dict[str, Any] = read_json(local_file(path), nan=True)
        conform(content, ModulesFile)
    except ValueError as error:
        raise ProbeError(
            f"{path} holds no modules ({first_line(error)}); give a file made by 'modules' or 'report'"
        ) from error
    return content


def sets_of(content: dict[str, Any], path: str | os.PathLike[str]) -> list[UnitSet]:
    """The modules of a file as unit sets of what they were found of, so that others are not swapped in their place."""
    sets = list(units_from_json(content["modules"], kind=kind_of(content.get("provenance"))))
    if not any(item.size for item in sets):
        raise ProbeError(f"{path} holds {len(sets)} modules and none has a unit; give a file with one that has")
    return sets


def names_of(content: dict[str, Any]) -> list[str]:
    """What the modules of a file are called: as somebody named them, by the part of the image that each shows, or by
    number."""
    count, names, shows = len(content["modules"]), content.get("names"), content.get("shows")
    if isinstance(names, list) and len(names) == count and all(isinstance(name, str) for name in names):
        return [str(name) for name in names]
    if not isinstance(shows, list) or len(shows) != count:
        shows = [None] * count  # a file of an earlier version, which names none
    return numbered_names([name if isinstance(name, str) else None for name in shows])


def require_same_weights(generator: GeneratorAdapter, provenance: Any, what: str) -> None:
    """Raise a ProbeError for modules that are known to be of other weights, whose channels are others."""
    made_with = provenance.get("weights_sha256") if isinstance(provenance, dict) else None
    if isinstance(made_with, str) and made_with != generator.weights_hash():
        raise ProbeError(
            f"the modules {what} were found with other weights ({made_with[:12]}…) than those of {generator.name} "
            f"({generator.weights_hash()[:12]}…); find them again"
        )


def named_sets(path: str | os.PathLike[str]) -> list[UnitSet]:
    """The modules of a file that have units, each under its name."""
    content = read_modules(path)
    pairs = zip(names_of(content), sets_of(content, path), strict=True)
    return [item.named(name) for name, item in pairs if item.size]
