"""How many modules: what speaks for each number of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..generator.results import Result
from .clustering import Array, Labels
from .confidence import ENOUGH
from .stability import Stability

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False, repr=False)
class Selection(Result):
    """Three measures for several numbers of modules K.

    Attributes:
        n_modules: (K,) the numbers tried.
        consistency: (K, repetitions) stability between subsets of the channels (conventions 12), which says
            nothing about other latents; (K, 0) where subsets were not compared.
        expected_ari: (K,) adjusted Rand index to be expected against another draw of as many pairs.
        variance_explained: (K,) share of the features' variance that lies between the modules.
    """

    n_modules: Labels
    consistency: Array
    expected_ari: Array
    variance_explained: Array
    provenance: dict[str, Any]

    def at(self, k: int) -> float:
        """The expected ARI of k modules; NaN if that was not tried."""
        found = self.expected_ari[self.n_modules == k]
        return float(found[0]) if found.size else float("nan")

    @property
    def suggested(self) -> int:
        """The most modules that another draw is expected to repeat; if it would repeat none, those it would best."""
        enough = self.n_modules[self.expected_ari >= ENOUGH]
        return int(enough.max()) if enough.size else int(self.n_modules[self.expected_ari.argmax()])

    def plot(self, ax: Axes | None = None) -> tuple[Figure, Axes]:
        """All three against the number of modules."""
        from .plots import plot_selection

        return plot_selection(
            self.n_modules, self.consistency, self.expected_ari, self.variance_explained, self.suggested, ax=ax
        )


def selection_of(expected_ari: Array, variance_explained: Array, stability: Stability) -> Selection:
    """Of modules of maps with blocks, one entry for each number of modules in the stability."""
    return Selection(stability.n_modules, stability.consistency, expected_ari, variance_explained, stability.provenance)
