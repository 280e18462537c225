"""The modules of a generator as a file: unit sets, their names, and how reproducible they were found to be."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..base.errors import ProbeError
from ..editing.choice import ModulesLike, named_modules
from ..generator.adapter import GeneratorAdapter
from ..generator.results import units_to_json
from ..generator.units import UnitSet
from ..modules.confidence import ExpectedDisagreement
from ..modules.finder import ModuleFinder
from ..registry.modules import names_of, read_modules

# Of a file that a command or a report wrote, what is shared: its names are those that this file gives.
_KEPT = ("labels", "shows", "confidence", "expected_ari", "ari_between_draws", "provenance")


@dataclass(frozen=True)
class SharedModules:
    """Modules that have units, and the content of their file.

    Attributes:
        sets: each under its name.
        content: of modules.json.
    """

    sets: tuple[UnitSet, ...]
    content: dict[str, Any]

    @property
    def expected_ari(self) -> float | None:
        """The expected adjusted Rand index against another sample of latents, or that between two; None if unknown."""
        found = self.content.get("expected_ari")
        return self.content.get("ari_between_draws") if found is None else found

    def confidence(self, number: int) -> float | None:
        """The mean confidence of the units of the module of this number; None if unknown."""
        labels, confidence = self.content.get("labels"), self.content.get("confidence")
        if not isinstance(labels, list) or not isinstance(confidence, list) or len(labels) != len(confidence):
            return None
        number = self.content["names"].index(self.sets[number].name)
        members = [value for label, value in zip(labels, confidence, strict=True) if label == number]
        known = [float(value) for value in members if isinstance(value, (int, float))]
        return float(np.mean(known)) if known else None


def shared_modules(generator: GeneratorAdapter, given: ModulesLike) -> SharedModules:
    """The modules that are given, in whatever form."""
    sets = tuple(named_modules(generator, given))
    if len({item.name for item in sets}) < len(sets):
        raise ProbeError("two modules have the same name; give each a name of its own, with finder.name_modules([…])")
    if isinstance(given, ModuleFinder):
        content = _of_finder(given)
    elif isinstance(given, (str, os.PathLike)) and not str(given).endswith(ModuleFinder.SUFFIX):
        file = read_modules(given)
        content = {name: file[name] for name in _KEPT if name in file}
        content |= {"modules": file["modules"], "names": names_of(file)}
    elif isinstance(given, (str, os.PathLike)):
        content = _of_finder(ModuleFinder.load(given))
    else:
        content = {"modules": units_to_json(sets), "names": [item.name for item in sets]}
    return SharedModules(sets, content)


def _of_finder(finder: ModuleFinder) -> dict[str, Any]:
    content: dict[str, Any] = {
        "modules": units_to_json(finder.unit_sets()),
        "names": list(finder.names_),
        "labels": finder.labels_.tolist(),
        "provenance": finder.provenance_.get("maps", {}),
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExpectedDisagreement)  # the card says it
            confidence, ari = finder.confidence_, finder.expected_ari_
    except ProbeError:  # its maps hold no blocks
        return content
    return content | {
        "confidence": [None if np.isnan(value) else float(value) for value in confidence],
        "expected_ari": None if np.isnan(ari) else ari,
    }
