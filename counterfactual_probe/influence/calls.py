"""Influence maps of the calls of one layer: which channel acts when, and where."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ..base.display.plot import Plot
from ..base.drawing import PALETTE, canvas
from ..base.errors import ProbeError
from ..generator.units import UnitSet

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CALL = re.compile(r"#([0-9]+)(?=[^#]*$)")
_LINES = 5  # channels that have a line of their own


def calls_of(units: Sequence[UnitSet]) -> list[int]:
    """The numbers of the calls, if the unit sets are each unit of each call alone; otherwise a ProbeError."""
    cure = "attribute the units of InfluenceMap(gen, gen.calls(layer)), each alone"
    places: dict[str, list[int]] = {}
    for item in units:
        if item.size != 1:
            raise ProbeError(f"a unit set holds {item.size} units ({item.label()}), and one is of one call; {cure}")
        ((layer, (unit,)),) = item.channels.items()
        places.setdefault(layer, []).append(unit)
    names = list(places)
    numbers = [_CALL.search(name) for name in names]
    bare = {_CALL.sub("", name) for name in names}
    if len(bare) > 1 or None in numbers:
        raise ProbeError(f"the maps are of {', '.join(names[:3])}, which are no calls of one layer; {cure}")
    if any(places[name] != places[names[0]] for name in names):
        raise ProbeError(f"{names[0]!r} has other units than another call, or in another order; {cure}")
    return [int(match[1]) for match in numbers if match is not None]


def by_call(values: Tensor, calls: int) -> Tensor:
    """(calls, units, …) from (sets, …), the calls one after the other."""
    return values.unflatten(0, (calls, -1))  # type: ignore[no-untyped-call,no-any-return]


def plot_calls(units: Sequence[UnitSet], means: Tensor, errors: Tensor, ax: Axes | None = None) -> Plot[Axes]:
    """Influence against the number of the call: the mean over units, and the strongest; bars are 2 standard errors."""
    calls = calls_of(units)
    influence = by_call(means, len(calls)).double().numpy()
    error = by_call(errors, len(calls)).double().numpy()
    figure, ax = canvas(ax, 4.6, 3.2)
    strongest = np.argsort(-influence.sum(0), kind="stable")[:_LINES]
    for place, unit in enumerate(strongest):
        item = units[int(unit)]
        ((_, (number,)),) = item.channels.items()
        colour = PALETTE[place % len(PALETTE)]
        ax.errorbar(
            calls, influence[:, unit], 2 * error[:, unit], color=colour, lw=1, capsize=2, label=f"{item.kind} {number}"
        )
    # Units share their pairs, so that their errors are not independent: the largest that the mean can have.
    ax.errorbar(calls, influence.mean(1), 2 * error.mean(1), color="0.2", lw=2, capsize=3, label="mean")
    ax.set_xlabel("call")
    ax.set_ylabel("influence")
    ax.set_ylim(bottom=0)
    ax.set_xticks(calls if len(calls) <= 12 else calls[:: -(-len(calls) // 12)])
    ax.legend(frameon=False, fontsize="small")
    return Plot(figure, ax)
