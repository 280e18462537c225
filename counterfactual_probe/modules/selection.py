"""How many modules: measures for choosing their number."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..base.display.description import Description, Picture, Table
from ..base.display.plot import Plot
from ..base.formats.provenance import Provenance
from ..generator.results import Result, origin
from .clustering import Array, Labels, ModulesProvenance
from .confidence import ENOUGH, Confident, ExpectedDisagreement, measure_together
from .evidence.result import LEVEL
from .stability import Stability

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False, repr=False)
class Selection(Result):
    """Measures for several numbers of modules K.

    Attributes:
        n_modules: (K,) the numbers tried.
        consistency: (K, repetitions) stability between subsets of the channels (conventions 12), which says
            nothing about other latents; (K, 0) where subsets were not compared.
        expected_ari: (K,) expected adjusted Rand index against another sample of as many pairs.
        variance_explained: (K,) share of the features' variance between the modules.
        p_value: (K,) of all K modules being apart (see :class:`Evidence`); None in files of earlier versions.
    """

    n_modules: Labels
    consistency: Array
    expected_ari: Array
    variance_explained: Array
    provenance: dict[str, Any]
    p_value: Array | None = None

    SHAPES: ClassVar[Mapping[str, str]] = {
        "n_modules": "count K",
        "consistency": "float K repetitions",
        "expected_ari": "float K",
        "variance_explained": "float K",
        "p_value": "float K",
    }
    ADDED: ClassVar[tuple[str, ...]] = ("p_value",)
    PROVENANCE: ClassVar[type[Provenance]] = ModulesProvenance

    def at(self, k: int) -> float:
        """The expected ARI of k modules; NaN if that was not tried."""
        expected = self.expected_ari[self.n_modules == k]
        return float(expected[0]) if expected.size else float("nan")

    @property
    def suggested(self) -> int:
        """The most modules that another sample is expected to reproduce; if none, the number it reproduces best."""
        enough = self.n_modules[self.expected_ari >= ENOUGH]
        return int(enough.max()) if enough.size else int(self.n_modules[self.expected_ari.argmax()])

    @property
    def apart(self) -> int | None:
        """The most modules that are all apart from one another; None if no number of them is, as in a continuum."""
        if self.p_value is None:
            return None
        found = self.n_modules[self.p_value <= LEVEL]
        return int(found.max()) if found.size else None

    def describe(self) -> Description:
        """All measures for each number of modules, and which number is suggested."""
        rows = tuple(
            (
                f"{record['n_modules']}{' (suggested)' if record['suggested'] else ''}",
                "–" if record["consistency"] is None else f"{record['consistency']:.2f}",
                f"{record['expected_ari']:.2f}",
                f"{record['variance_explained']:.2f}",
                "–" if record["p_value"] is None else f"{record['p_value']:.3f}",
            )
            for record in self.records()
        )
        about = self.provenance
        warning = ""
        if self.expected_ari.max() < ENOUGH:
            warning = f"another sample of latents is expected to reproduce none of them (ARI below {ENOUGH})"
        elif self.p_value is not None and self.apart is None:
            warning = "nothing shows gaps between modules of any number: it may be a choice of where to cut a continuum"
        return Description(
            "Selection",
            f"{origin(about)}: {about.get('method')} of {about.get('features')}, suggested K = {self.suggested}",
            table=Table(("K", "label consistency", "expected ARI", "variance explained", "p of all apart"), rows),
            pictures=(Picture("All three measures against the number of modules.", self.plot),),
            warning=warning,
            page="modules",
        )

    def records(self) -> Iterator[dict[str, Any]]:
        """One for each number of modules."""
        for row, k in enumerate(self.n_modules.tolist()):
            consistency = self.consistency[row]
            yield {
                "n_modules": k,
                "consistency": float(consistency.mean()) if consistency.size else None,
                "expected_ari": float(self.expected_ari[row]),
                "variance_explained": float(self.variance_explained[row]),
                "p_value": None if self.p_value is None else float(self.p_value[row]),
                "suggested": k == self.suggested,
            }

    def plot(self, ax: Axes | None = None) -> Plot[Axes]:
        """All three against the number of modules."""
        from .plots import plot_selection

        return plot_selection(
            self.n_modules, self.consistency, self.expected_ari, self.variance_explained, self.suggested, ax=ax
        )


def compare_finders(finders: Sequence[Confident], stability: Stability) -> Selection:
    """Measures of several finders, fitted on maps with blocks: one for each number in the stability."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExpectedDisagreement)
        measure_together(finders)
        expected = np.array([finder.expected_ari_ for finder in finders])
    return Selection(
        stability.n_modules,
        stability.consistency,
        expected,
        np.array([finder.variance_explained_ for finder in finders]),
        stability.provenance,
        np.array([finder.evidence_.p_value for finder in finders]),
    )
