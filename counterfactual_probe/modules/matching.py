"""Modules of two layers that act in the same place (S003 §4.1)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..base.display.description import Description, Picture, Table
from ..base.display.flat import as_pictures
from ..base.display.plot import Plot
from ..base.display.text import counted
from ..base.errors import ProbeError, first_few, required
from ..generator.results import Result, kind_of, origin
from ..generator.units import UnitSet, union
from .clustering import Array, Floats, Labels, assign, cosine_matrix
from .finder import ModuleFinder, module_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ALIKE = 0.5  # cosine of two templates below which they hardly show the same place


@dataclass(frozen=True, eq=False, repr=False)
class ModuleMatch(Result):
    """Modules of one layer with their counterparts in another (conventions 14).

    Attributes:
        units: one unit set per matched pair, over both layers.
        pairs: (K, 2), module of the first and module of the second.
        cosines: (K,), of the matched templates.
        templates: (2, K, H, W), those of the first over the matched ones of the second.
        provenance: that of both finders.
    """

    units: tuple[UnitSet, ...]
    pairs: Labels
    cosines: Array
    templates: Floats
    provenance: dict[str, Any]

    SHAPES: ClassVar[Mapping[str, str]] = {
        "units": "list K",
        "pairs": "count K 2",
        "cosines": "float K",
        "templates": "float 2 K size*",
    }

    def describe(self) -> Description:
        """Which modules are matched, how well, and over how many units."""
        kind = kind_of(self.provenance)
        rows = tuple((r["modules"], f"{r['cosine']:.2f}", str(r[f"{kind}s"])) for r in self.records())
        poor = [name for name, cosine, _ in rows if float(cosine) < _ALIKE]
        return Description(
            "ModuleMatch",
            f"{origin(self.provenance)}: {counted(len(rows), 'pair')} of modules",
            table=Table(("modules", "cosine", f"{kind}s"), rows),
            pictures=(Picture("The matched templates, one pair in a column.", self.plot),),
            warning=f"{first_few(poor, 3)}: the templates are hardly alike (cosine below {_ALIKE})" if poor else "",
            page="modules",
        )

    def records(self) -> Iterator[dict[str, Any]]:
        """One for each pair of modules, counted from 1."""
        for item, (one, two), cosine in zip(self.units, self.pairs.tolist(), self.cosines.tolist(), strict=True):
            yield {
                "modules": item.name or _pair_name(module_name(one), module_name(two)),
                "first": one + 1,
                "second": two + 1,
                "cosine": cosine,
                f"{item.kind}s": item.size,
            }

    def plot(self, ax: Axes | None = None) -> Plot[Axes]:
        """The matched templates, one pair in a column."""
        from .plots import plot_templates

        titles = [f"{record['modules']}\ncos {record['cosine']:.2f}" for record in self.records()]
        return plot_templates(as_pictures(self.templates, self.templates.ndim - 2), titles, ax=ax)


def match_modules(first: ModuleFinder, second: ModuleFinder) -> ModuleMatch:
    """Match the modules of two layers by the cosine of their templates, one to one.

    >>> cp.match_modules(finder_of_main_5, finder_of_main_8).units  # doctest: +SKIP

    The alternative is one factorisation of the maps of both: a :class:`ModuleFinder` fitted on those of
    ``InfluenceMap(gen, ["main.5", "main.8"])`` has modules over both layers (conventions 14).
    """
    for finder in (first, second):
        required(finder, ModuleFinder, "a finder of modules to match", "give two fitted cp.ModuleFinder").require_fit()
    one, two = first.templates_, second.templates_
    if one.shape != two.shape:
        raise ProbeError(
            f"the templates have shapes {one.shape} and {two.shape}; fit both layers with the same number of modules"
        )
    cosines = cosine_matrix(one.reshape(len(one), -1), two.reshape(len(two), -1))
    order = assign(cosines)
    pairs = np.stack([np.arange(len(order)), order], axis=1)
    sets = first.unit_sets(), second.unit_sets()
    units = tuple(
        union((sets[0][k], sets[1][j])).named(_pair_name(first.names_[k], second.names_[j])) for k, j in pairs.tolist()
    )
    about = {
        "generator": first.provenance_["maps"]["generator"],
        "layers": list(dict.fromkeys(layer for item in units for layer in item)),
        "first": first.provenance_,
        "second": second.provenance_,
    }
    return ModuleMatch(units, pairs, cosines[tuple(pairs.T)], np.stack([one, two[order]]), about)


def _pair_name(one: str, two: str) -> str:
    """What a pair of modules is called: by both names, the one that they share, or as in "module 1 with 2"."""
    if one.startswith("module "):
        return f"{one} with {two.removeprefix('module ')}"
    return one if one == two else f"{one} with {two}"
