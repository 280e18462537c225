"""The section of the report on the spectral dependency of successive layers."""

from __future__ import annotations

from collections.abc import Callable

from ...base.display.description import Table
from ...generator.adapter import GeneratorAdapter
from ...spectral import SpectralDependency, SpectralTable
from ...spectral.distribution import ABOVE, BELOW
from ..section import Section, SectionMaker, shown
from ..study import Study
from ..words import percent


def _section(generator: GeneratorAdapter, study: Study, say: Callable[[str], None]) -> Section:
    """Ratios of all of the generator's convolutions, and of the network it was trained with."""
    say("comparing the kernels of successive convolutions")
    sd = SpectralDependency(generator)
    tables = {"generator": sd.table()}
    if generator.partner is not None:
        tables["partner"] = SpectralDependency(generator.partner, name=f"{generator.name}'s partner").table()
    figure, _ = tables["generator"].plot(against=tables.get("partner"))
    about = f"{study.generator}, all pathways in → mid → out"
    words = (
        "Spectral dependency ratios of all pathways through two successive convolutions, from the finest layers to the "
        "coarsest; at 1 (dotted), a kernel neither favours nor avoids the frequencies of its input."
    )
    figures = (shown("histograms", figure, words, about),)
    files = {f"{name}{suffix}": table for name, table in tables.items() for suffix in (".safetensors", ".csv")}
    sentences = tuple(_said(table) for table in tables.values())
    return Section("Spectral dependency", sentences, tuple(map(_table, tables.values())), figures, files)


def _said(table: SpectralTable) -> str:
    alive = [row for row in table.rows if row["alive"] and not row["skip"]]
    name = table.provenance["generator"]
    if not alive:
        return f"Every kernel of {name} is dead."
    widest = max(alive, key=lambda row: float(row["std"]))
    return (
        f"In {name}, ratios spread most from {widest['earlier']} to {widest['later']}: mean {widest['mean']:.2f}, "
        f"standard deviation {widest['std']:.2f}, {percent(widest['share_below'])} below {BELOW:g} and "
        f"{percent(widest['share_above'])} above {ABOVE:g}."
    )


def _table(table: SpectralTable) -> Table:
    head = ("pair", "pathways", "dead", "mean", "spread", f"below {BELOW:g}", f"above {ABOVE:g}")
    rows = []
    for row in table.rows:
        if row["skip"]:
            continue
        cells = [f"{row['earlier']} → {row['later']}", f"{row['pathways']:,}", f"{row['dead']:,}"]
        if row["alive"]:
            cells += [f"{row['mean']:.3f}", f"{row['std']:.3f}"]
            cells += [percent(row["share_below"]), percent(row["share_above"])]
        else:
            cells += ["–"] * 4
        rows.append(tuple(cells))
    return Table(head, tuple(rows), f"Convolutions of {table.provenance['generator']}, in execution order.")


SECTION = SectionMaker("spectral", "how far successive layers depend on each other's frequencies", _section)
