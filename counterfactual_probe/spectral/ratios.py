"""Results: the ratios of a pair of convolutions, of activation maps, and of all pairs of a network."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from ..base.display.description import Description, Picture, Table
from ..base.display.plot import Plot
from ..base.display.text import as_text, counted
from ..base.errors import ProbeError
from ..base.formats.provenance import Provenance
from ..base.formats.schema import OpenSchema, conform
from ..base.formats.types import Count, Name, Number, Pair, Text
from ..generator.results import Result
from .distribution import BINS, Gatherer, summary_facts

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class RatiosProvenance(Provenance, kw_only=True):
    """What ratios record: the earlier layer and the later one."""

    layers: Pair[Name]


@dataclass(frozen=True, eq=False, repr=False)
class SpectralRatios(Result):
    """The spectral dependency ratio of every pathway in → mid → out between two convolutions (S002 eq. 3 and 4).

    Attributes:
        ratio: (in, mid, out) float64; NaN for pathways through a dead kernel and, with grouped convolutions, where
            there is no pathway at all.
        n_pathways: how many there are, dead ones included.
        provenance: the two layers, the stride between them, the model and its weights.
    """

    ratio: Tensor
    n_pathways: int
    provenance: dict[str, Any]

    SHAPES: ClassVar[Mapping[str, str]] = {"ratio": "float in mid out"}
    PROVENANCE: ClassVar[type[Provenance]] = RatiosProvenance

    @property
    def alive(self) -> Tensor:
        """The ratios that there are, in one row."""
        return self.ratio[~torch.isnan(self.ratio)]

    @property
    def dead(self) -> int:
        """How many pathways have no ratio, because a kernel on them is all zeros."""
        return self.n_pathways - len(self.alive)

    @property
    def mean(self) -> float:
        """Over the pathways alive."""
        return float(self.alive.mean())

    @property
    def per_filter(self) -> Tensor:
        """(in, mid) mean over the later layer's outputs: the SDR of an earlier layer's filter (S002 §4.2)."""
        return self.ratio.nanmean(2)

    def summary(self) -> dict[str, Any]:
        """Mean, spread, shares below 0.9 and above 1.45, and quantiles."""
        gathered = Gatherer()
        gathered.add(self.alive)
        gathered.dead = self.dead
        return gathered.summary()

    def describe(self) -> Description:
        """The distribution of the ratios."""
        earlier, later = self.provenance["layers"]
        return Description(
            "SpectralRatios",
            f"{self.provenance.get('generator')}, {earlier} → {later}: {self.n_pathways:,} pathways, "
            f"{self.dead:,} dead",
            facts=summary_facts(self.summary()),
            pictures=(Picture("Histogram of the ratios; 1 is no dependency.", self.plot),),
            page="spectral",
        )

    def records(self) -> Iterator[dict[str, Any]]:
        """One for each filter of the earlier layer: its mean ratio over the later layer's outputs."""
        for channel, row in enumerate(self.per_filter.tolist()):
            for mid, ratio in enumerate(row):
                yield {"in": channel, "mid": mid, "ratio": ratio}

    def plot(self, ax: Axes | None = None, *, label: str | None = None) -> Plot[Axes]:
        """A histogram of the ratios (S002 Fig. 4)."""
        from .plots import plot_histograms

        gathered = Gatherer()
        gathered.add(self.alive)
        name = label or " → ".join(self.provenance["layers"])
        return plot_histograms({name: gathered.histogram.numpy()}, ax=ax)


@dataclass(frozen=True, eq=False, repr=False)
class ActivationRatios(Result):
    """Spectral dependency ratios of activation maps and the filters that read them (S000 eq. 8).

    Attributes:
        ratio: (maps, filters) float64; NaN for dead maps and filters.
        n_samples: how many activations the power spectra are means over.
    """

    ratio: Tensor
    n_samples: int
    provenance: dict[str, Any]

    SHAPES: ClassVar[Mapping[str, str]] = {"ratio": "float maps filters"}
    PROVENANCE: ClassVar[type[Provenance]] = RatiosProvenance

    @property
    def per_map(self) -> Tensor:
        """(maps,) mean over a map's filters; NaN for a dead map, which has no ratio."""
        return self.ratio.nanmean(1)

    @property
    def dead(self) -> int:
        """How many maps are zero in every sample."""
        return int(torch.isnan(self.ratio).all(1).sum())

    @property
    def mean(self) -> float:
        """Over maps that are alive."""
        return float(self.per_map.nanmean())

    def summary(self) -> dict[str, Any]:
        """The distribution of the maps' ratios."""
        gathered = Gatherer()
        gathered.add(self.per_map)
        return gathered.summary()

    def describe(self) -> Description:
        """The distribution of the maps' ratios."""
        maps, filters = self.ratio.shape
        return Description(
            "ActivationRatios",
            f"{self.provenance.get('generator')}, {' → '.join(self.provenance['layers'])}: {counted(maps, 'map')} × "
            f"{counted(filters, 'filter')}, {counted(self.n_samples, 'sample')}, {counted(self.dead, 'map')} dead",
            facts=summary_facts(self.summary()),
            pictures=(Picture("Histogram of the maps' ratios; 1 is no dependency.", self.plot),),
            page="spectral",
        )

    def records(self) -> Iterator[dict[str, Any]]:
        """One for each map: its mean ratio over filters, NaN of a dead one."""
        for number, ratio in enumerate(self.per_map.tolist()):
            yield {"map": number, "ratio": ratio}

    def plot(self, ax: Axes | None = None, *, label: str | None = None) -> Plot[Axes]:
        """A histogram of the maps' ratios."""
        from .plots import plot_histograms

        gathered = Gatherer()
        gathered.add(self.per_map)
        name = label or " → ".join(self.provenance["layers"])
        return plot_histograms({name: gathered.histogram.numpy()}, ax=ax, what="activation maps")


_HEAD = ("pair", "channels", "rate", "pathways", "dead", "mean", "std", "< 0.9", "> 1.45")
_COLUMNS = (
    "earlier", "later", "direction", "stride", "in", "mid", "out", "pathways", "dead", "mean", "std", "share_below",
    "share_above", "q05", "q25", "q50", "q75", "q95", "least", "largest", "skip", "between",
)  # fmt: skip


class TableRow(OpenSchema, rename={"in_": "in"}):
    """A pair of convolutions, as a row of a table has it; statistics are None where every pathway is dead."""

    earlier: Text
    later: Text
    in_: Count
    mid: Count
    out: Count
    direction: Name
    stride: Pair[Count]
    size: Pair[Count]
    pathways: Count
    alive: Count
    dead: Count
    skip: bool
    between: list[Text]
    mean: Number | None
    std: Number | None
    share_below: Number | None
    share_above: Number | None
    least: Number | None
    largest: Number | None
    q05: Number | None
    q25: Number | None
    q50: Number | None
    q75: Number | None
    q95: Number | None


class TableProvenance(Provenance, kw_only=True):
    """What a table of a network records."""

    generator: Text
    direction: Name


@dataclass(frozen=True, eq=False, repr=False)
class SpectralTable(Result):
    """All pairs of a network: a row of statistics and a histogram each, from the first pair to the last.

    ``print`` shows the table; ``to_csv`` and ``to_json`` write it.

    Attributes:
        rows: a dict for each pair: names, channels, stride, mean, std, ``share_below`` (ratio < 0.9),
            ``share_above`` (> 1.45), quantiles, number of dead pathways.
        histograms: (pairs, bins) counts over ``spectral.EDGES``.
        provenance: model, weights, versions, and what could not be compared.
    """

    rows: list[dict[str, Any]]
    histograms: Tensor
    provenance: dict[str, Any]

    SHAPES: ClassVar[Mapping[str, str]] = {"rows": "list pairs", "histograms": f"count pairs {BINS}"}
    PROVENANCE: ClassVar[type[Provenance]] = TableProvenance

    def _contradiction(self) -> str | None:
        conform(self.rows, list[TableRow], "rows")
        return super()._contradiction()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def fine_to_coarse(self) -> list[int]:
        """The rows from the finest maps to the coarsest, whichever way the network runs."""
        building = self.provenance["direction"] != "down"
        return sorted(range(len(self)), key=lambda i: (-self.rows[i]["size"][0], -i if building else i))

    def describe(self) -> Description:
        """A line for each pair, and histograms layer by layer."""
        rows = []
        for row in self.rows:
            stride = "×".join(map(str, row["stride"] if len(set(row["stride"])) > 1 else row["stride"][:1]))
            rows.append(
                (
                    f"{row['earlier']} → {row['later']}" + (" (skip)" if row["skip"] else ""),
                    f"{row['in']}→{row['mid']}→{row['out']}",
                    row["direction"] if row["direction"] == "same" else f"{row['direction']} {stride}",
                    f"{row['pathways']:,}",
                    f"{row['dead']:,}",
                    *(_rounded(row[name]) for name in ("mean", "std", "share_below", "share_above")),
                )
            )
        return Description(
            "SpectralTable",
            f"{self.provenance['generator']}: spectral dependency ratios of "
            f"{counted(len(self), 'pair')} of convolutions",
            table=Table(_HEAD, tuple(rows)),
            pictures=(Picture("Histograms of the ratios, from fine to coarse; 1 is no dependency.", self.plot),),
            page="spectral",
        )

    def to_text(self) -> str:
        """The table as aligned lines."""
        return as_text(self.describe())

    def records(self) -> Iterator[dict[str, Any]]:
        """One for each pair of convolutions; ``rows`` without lists."""
        for row in self.rows:
            flat = row | {"stride": "×".join(map(str, row["stride"])), "between": "; ".join(row["between"])}
            yield {name: flat[name] for name in _COLUMNS}

    def _json(self) -> dict[str, Any]:
        return {"pairs": self.rows, "provenance": self.provenance}

    def write_csv(self, path: str | os.PathLike[str]) -> Path:
        """The same as ``to_csv(path)``."""
        return self.to_csv(path)

    def write_json(self, path: str | os.PathLike[str]) -> Path:
        """The same as ``to_json(path)``."""
        return self.to_json(path)

    def plot(
        self,
        ax: Axes | None = None,
        *,
        against: SpectralTable | Sequence[SpectralTable] | None = None,
        names: Sequence[str] | None = None,
        most: int = 8,
    ) -> Plot[Any]:
        """Histograms layer by layer, from fine to coarse, of several networks superimposed (S002 Figs 4, 5, 9).

        >>> generator.plot(against=discriminator)  # doctest: +SKIP

        The finest pair of one is put on the finest of the other, and so on. ``names`` are the networks'; at most
        ``most`` panels are drawn. Pairs that skip other convolutions are left out where there are others. Onto given
        axes goes one histogram of each network, of all its pairs together.
        """
        from .plots import plot_histograms, plot_layers

        others = [] if against is None else [against] if isinstance(against, SpectralTable) else list(against)
        tables = [self, *others]
        if most < 1:
            raise ProbeError(f"most is {most}; give at least 1 panel")
        given = list(names) if names is not None else [str(table.provenance["generator"]) for table in tables]
        if len(given) != len(tables):
            raise ProbeError(
                f"{counted(len(given), 'name')} given for {counted(len(tables), 'network')}; give one each"
            )
        panels = [table.panels() for table in tables]
        if ax is None:
            return plot_layers(panels, given, most=most)
        sums = [sum(histogram for _, histogram in panel) for panel in panels]
        return plot_histograms(dict(zip(given, sums, strict=True)), ax=ax)

    def panels(self) -> list[tuple[str, Any]]:
        """(title, histogram) of each pair, from fine to coarse; skips are left out where there are others."""
        order = [i for i in self.fine_to_coarse if not self.rows[i]["skip"]] or self.fine_to_coarse
        return [(f"{self.rows[i]['earlier']} → {self.rows[i]['later']}", self.histograms[i].numpy()) for i in order]


def _rounded(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
