"""Modules at each call of a layer, and whether channels keep them from call to call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ...base.display.description import Description, Picture, Table
from ...base.display.flat import as_pictures
from ...base.display.plot import Plot
from ...base.display.text import counted, plus_minus
from ...base.formats.provenance import Provenance
from ...generator.results import Result, origin
from ...generator.units import UnitSet
from ..clustering import NO_MODULE, Array, Floats, Labels, ModulesProvenance
from ..finder import module_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CHANCE = 0.05  # p-value from which a share is no larger than chance
_NO_BLOCKS = (
    "without sums over blocks of pairs, nothing says how far other latents would change the modules; make maps with "
    "attribute(..., blocks=32)"
)


@dataclass(frozen=True, eq=False, repr=False)
class ModulesByCall(Result):
    """Modules at each call of a layer, matched from call to call, and the share of channels that keep theirs.

    Attributes:
        units: one unit set per module, of its channels at every call; :class:`Hybridizer` takes them.
        calls: (calls,) the numbers of the calls.
        labels: (calls, channels) module of each channel at each call, −1 for a dead one. A module has the number of its
            counterpart at the call before.
        templates: (calls, K, H, W).
        cosines: (calls − 1, K) of the matched templates of successive calls.
        kept: (calls − 1,) share of the channels that keep their module from a call to the next; dead ones do not count.
        chance: (calls − 1, permutations) the same share, the channels of the later call permuted.
        kept_throughout: share of the channels that are in one module at all calls.
        chance_throughout: (permutations,) the same share, the channels of every call permuted.
        standard_error: (calls − 1,) of ``kept``, between samples of as many pairs of latents. It errs on the large side
            where modules are hardly reproducible. None for maps without blocks.
        reproducible: (calls,) share of the channels that another sample of latents would leave in their module at the
            same call (mean of :attr:`ModuleFinder.confidence_`), which ``kept`` is to be compared with; None for maps
            without blocks.
        provenance: how modules were found, and that of the maps.
    """

    units: tuple[UnitSet, ...]
    calls: Labels
    labels: Labels
    templates: Floats
    cosines: Array
    kept: Array
    chance: Array
    kept_throughout: float
    chance_throughout: Array
    provenance: dict[str, Any]
    standard_error: Array | None = None
    reproducible: Array | None = None

    SHAPES: ClassVar[Mapping[str, str]] = {
        "units": "list K",
        "calls": "count calls",
        "labels": "int calls channels",
        "templates": "float calls K size*",
        "cosines": "float calls-1 K",
        "kept": "float calls-1",
        "chance": "float calls-1 permutations",
        "chance_throughout": "float permutations",
        "standard_error": "float calls-1",
        "reproducible": "float calls",
    }
    PROVENANCE: ClassVar[type[Provenance]] = ModulesProvenance

    def _contradiction(self) -> str | None:
        largest, smallest = int(self.labels.max(initial=NO_MODULE)), int(self.labels.min(initial=NO_MODULE))
        if largest >= len(self.units) or smallest < NO_MODULE:
            return f"its labels run from {smallest} to {largest} and it has {len(self.units)} modules"
        return super()._contradiction()

    @property
    def names(self) -> list[str]:
        """What figures call the modules."""
        return [item.name or module_name(k) for k, item in enumerate(self.units)]

    @property
    def p_value(self) -> Array:
        """(calls − 1,) (1 + permutations that keep as many) / (1 + permutations)."""
        as_often = (self.chance >= self.kept[:, None]).sum(1)
        return np.asarray((1 + as_often) / (1 + self.chance.shape[1]))

    def describe(self) -> Description:
        """The share of channels that keep their module from each call to the next, beside chance."""
        channels, calls = counted(self.labels.shape[1], "channel"), counted(len(self.calls), "call")
        numbers = f"{counted(len(self.units), 'module')} of {channels} at {calls}"
        chance = float(self.chance_throughout.mean())
        facts = [("in one module at all calls", f"{self.kept_throughout:.0%} of the channels (chance {chance:.0%})")]
        if self.reproducible is not None:
            low, high = float(self.reproducible.min()), float(self.reproducible.max())
            facts.append(("reproducible", f"{low:.0%} to {high:.0%} of the channels, other latents at the same call"))
        return Description(
            "ModulesByCall",
            f"{origin(self.provenance)}: {numbers}",
            facts=tuple(facts),
            table=self._table(),
            pictures=(
                Picture("Channels that keep their module from call to call, beside chance.", self.plot),
                Picture("The module of each channel at each call.", self.plot_channels),
                Picture("Templates of the modules: a column for each call.", self.plot_templates),
            ),
            warning=self._warning(),
            page="samplers",
        )

    def _table(self) -> Table:
        rows = []
        for record in self.records():
            error = record["standard_error"]
            kept = f"{record['kept']:.2f}" if error is None else plus_minus(record["kept"], error, ".2f")
            cells = (f"{record['call']} → {record['next']}", kept, f"{record['chance']:.2f}")
            rows.append((*cells, f"{record['p_value']:.2g}", f"{record['cosine']:.2f}"))
        note = "" if self.standard_error is None else "Shares ± one standard error over pairs of latents."
        return Table(("calls", "keep their module", "chance", "p-value", "cosine of templates"), tuple(rows), note)

    def _warning(self) -> str:
        by_chance = [f"{record['call']} → {record['next']}" for record in self.records() if record["p_value"] > _CHANCE]
        if by_chance:
            return f"calls {', '.join(by_chance)}: no more channels keep their module than by chance"
        return _NO_BLOCKS if self.reproducible is None else ""

    def records(self) -> Iterator[dict[str, Any]]:
        """One for each call but the last: what becomes of its modules at the next."""
        chance, p_value = self.chance.mean(1), self.p_value
        for place, (call, after) in enumerate(pairwise(self.calls.tolist())):
            yield {
                "call": call,
                "next": after,
                "kept": float(self.kept[place]),
                "standard_error": None if self.standard_error is None else float(self.standard_error[place]),
                "chance": float(chance[place]),
                "p_value": float(p_value[place]),
                "cosine": float(self.cosines[place].mean()),
            }

    def plot(self, ax: Axes | None = None) -> Plot[Axes]:
        """The share of channels that keep their module from call to call, beside chance; bars are 2 standard errors."""
        from .plots import plot_kept

        return plot_kept(self.calls, self.kept, self.chance, self.standard_error, reproducible=self.reproducible, ax=ax)

    def plot_channels(self, ax: Axes | None = None) -> Plot[Axes]:
        """The module of each channel, a column, at each call, a row; channels of alike courses stand together."""
        from .plots import plot_courses

        return plot_courses(self.calls, self.labels, self.names, ax=ax)

    def plot_templates(self, ax: Axes | None = None) -> Plot[Axes]:
        """The templates: a row for each module, a column for each call."""
        from .plots import plot_templates_by_call

        shown = as_pictures(self.templates, self.templates.ndim - 2)
        return plot_templates_by_call(shown, self.calls, self.names, ax=ax)
