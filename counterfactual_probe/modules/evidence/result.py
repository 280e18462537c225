"""Evidence that modules are parts of a generator, and not pieces of a continuum."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ...base.display.description import Description, Picture, Table
from ...base.display.plot import Plot
from ...base.display.text import counted
from ...base.formats.provenance import Provenance
from ...generator.results import Result, origin
from ..clustering import Array, Labels, ModulesProvenance
from .gaps import CONTROLS, Gaps, line_gaps

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEVEL = 0.05  # p-values up to this are evidence


@dataclass(frozen=True, eq=False, repr=False)
class Evidence(Result):
    """Whether modules are apart from one another, or a continuum cut into pieces.

    >>> finder.evidence_.p_value, finder.evidence_.apart  # doctest: +SKIP

    Reproducible modules need not be parts: channels that act at random places, a continuum, are cut into the same
    pieces by every sample of latents. A gap is the distance to the nearest channel of another module over that within
    the module (quantiles of 5 and 90 %), noise taken away; 999 controls have as many channels at random on a line.
    How often it finds planted modules, and none in continua, is measured in docs/evidence.md.

    Attributes:
        names: of the modules.
        sizes: (modules,) channels.
        gap: (modules,), NaN of a module of fewer than 3 channels.
        p_values: (modules,), share of controls with a gap as large; 1 where there is no gap to measure.
    """

    names: tuple[str, ...]
    sizes: Labels
    gap: Array
    p_values: Array
    provenance: dict[str, Any]

    SHAPES: ClassVar[Mapping[str, str]] = {
        "names": "list modules",
        "sizes": "count modules",
        "gap": "float modules",
        "p_values": "float modules",
    }
    PROVENANCE: ClassVar[type[Provenance]] = ModulesProvenance

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))  # a list, in a file

    @property
    def p_value(self) -> float:
        """Of all modules being apart from the others: the largest of their p-values."""
        return float(self.p_values.max())

    @property
    def apart(self) -> bool:
        """Whether each module has a gap around it that a continuum has in at most 5 % of cases."""
        return self.p_value <= LEVEL

    @property
    def sentence(self) -> str:
        """What the evidence says, for people who read a report."""
        if self.apart:
            return f"Each is apart from the others (p = {self.p_value:.2g}): they are parts, not pieces of a continuum."
        alone = [name for name, p in zip(self.names, self.p_values, strict=True) if p <= LEVEL]
        if alone:
            verb = "stands" if len(alone) == 1 else "stand"
            return f"Of the {len(self.names)}, {counted(len(alone), 'group')} {verb} apart: {', '.join(alone)}."
        return (
            "Nothing shows gaps between them: channels may pass into one another, and the number of groups is a choice."
        )

    def describe(self) -> Description:
        """Gap and p-value of each module."""
        rows = tuple(
            (
                record["module"],
                str(record["units"]),
                "–" if np.isnan(record["gap"]) else f"{record['gap']:.2f}",
                f"{record['p_value']:.3f}",
            )
            for record in self.records()
        )
        return Description(
            "Evidence",
            f"{origin(self.provenance)}: p = {self.p_value:.3f} that {len(rows)} modules are apart",
            table=Table(("module", "units", "gap", f"p (of {CONTROLS} controls)"), rows),
            pictures=(Picture("Gaps around modules, and those that a continuum leaves.", self.plot),),
            warning="" if self.apart else self.sentence,
            page="evidence",
        )

    def records(self) -> Iterator[dict[str, Any]]:
        """One for each module."""
        for name, size, gap, p in zip(self.names, self.sizes, self.gap, self.p_values, strict=True):
            yield {"module": name, "units": int(size), "gap": float(gap), "p_value": float(p)}

    def plot(self, ax: Axes | None = None) -> Plot[Axes]:
        """The gap of each module beside those of controls: the bar ends at their 95 % quantile."""
        from ..plots import plot_gaps

        controls = [line_gaps(int(size)) if size > 1 else np.ones(1) for size in self.sizes]
        limits = np.array([np.quantile(values, 1 - LEVEL) for values in controls])
        return plot_gaps(self.gap, limits, self.names, ax=ax)


def evidence_for(gaps: Gaps, labels: Labels, names: tuple[str, ...], provenance: Mapping[str, Any]) -> Evidence:
    """The evidence for modules with these gaps around them."""
    sizes = np.bincount(labels[labels >= 0], minlength=len(names)).astype(np.int64)
    return Evidence(names, sizes, gaps.ratio, gaps.p_values, dict(provenance))
