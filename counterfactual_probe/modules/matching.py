"""Modules of two layers that act in the same place (S003 §4.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..base.errors import ProbeError
from ..generator.results import Result
from ..generator.units import UnitSet, union
from .clustering import Array, Floats, Labels, assign, cosine_matrix
from .finder import ModuleFinder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


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

    def plot(self, ax: Axes | None = None) -> tuple[Figure, Axes]:
        """The matched templates, one pair in a column."""
        from .plots import plot_templates

        pairs = zip(self.pairs + 1, self.cosines, strict=True)
        return plot_templates(self.templates, [f"{k} with {j}\ncos {cosine:.2f}" for (k, j), cosine in pairs], ax=ax)


def match_modules(first: ModuleFinder, second: ModuleFinder) -> ModuleMatch:
    """Match the modules of two layers by the cosine of their templates, one to one.

    >>> cp.match_modules(finder_of_main_5, finder_of_main_8).units  # doctest: +SKIP

    The alternative is one factorisation of the maps of both: a :class:`ModuleFinder` fitted on those of
    ``InfluenceMap(gen, ["main.5", "main.8"])`` has modules over both layers (conventions 14).
    """
    for finder in (first, second):
        finder.require_fit()
    one, two = first.templates_, second.templates_
    if one.shape != two.shape:
        raise ProbeError(
            f"the templates have shapes {one.shape} and {two.shape}; fit both layers with the same number of modules"
        )
    cosines = cosine_matrix(one.reshape(len(one), -1), two.reshape(len(two), -1))
    order = assign(cosines)
    pairs = np.stack([np.arange(len(order)), order], axis=1)
    sets = first.unit_sets(), second.unit_sets()
    units = tuple(union((sets[0][k], sets[1][j])) for k, j in pairs)
    about = {
        "generator": first.provenance_["maps"]["generator"],
        "layers": list(dict.fromkeys(layer for item in units for layer in item)),
        "first": first.provenance_,
        "second": second.provenance_,
    }
    return ModuleMatch(units, pairs, cosines[tuple(pairs.T)], np.stack([one, two[order]]), about)
