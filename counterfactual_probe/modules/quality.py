"""Quality of modules: whether each acts in its own region more than random channels do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..base.display.description import Description, Picture, Table
from ..base.display.plot import Plot
from ..base.display.text import counted
from ..base.errors import ProbeError, first_few, whole
from ..base.formats.provenance import Provenance
from ..base.formats.types import Count
from ..generator.results import Result, kind_of, origin
from ..generator.units import UnitSet
from ..influence.influence_map import InfluenceMap
from .clustering import Array, Floats
from .features import above

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CONTROLS = 199  # of which p-values are right to half a percent
_TYPICAL = 0.5  # share of random sets below which a module is as specific as any
_QUARTER = 75.0  # the module's own region: the pixels above this percentile of its template


class QualityProvenance(Provenance, kw_only=True):
    """What the quality of modules records: their numbers among all, where those without channels are left out."""

    modules: list[Count] | None = None


@dataclass(frozen=True, eq=False, repr=False)
class ModuleQuality(Result):
    """Specificity of modules, compared with random sets of as many channels.

    Attributes:
        units: the modules with at least one channel.
        influence: (modules,) of the whole module.
        specificity: (modules,) its influence inside its own region, the quarter of the image where its template is
            largest, divided by that outside; 1 means that it has no such region.
        random: (modules, controls) the same for random sets of equal size, in the same region.
    """

    units: tuple[UnitSet, ...]
    influence: Array
    specificity: Array
    random: Array
    provenance: dict[str, Any]

    SHAPES: ClassVar[Mapping[str, str]] = {
        "influence": "float modules",
        "specificity": "float modules",
        "random": "float modules controls",
        "units": "list modules",
    }
    PROVENANCE: ClassVar[type[Provenance]] = QualityProvenance

    def _contradiction(self) -> str | None:
        numbers = self.provenance.get("modules")
        if numbers is not None and len(numbers) != len(self.units):
            return f"its provenance numbers {len(numbers)} modules and units has {len(self.units)}"
        return super()._contradiction()

    @property
    def above_random(self) -> Array:
        """(modules,) share of the random sets that are less specific."""
        return np.asarray((self.random < self.specificity[:, None]).mean(1))

    @property
    def p_value(self) -> Array:
        """(modules,) share of the random sets, with the module itself, that are as specific."""
        as_specific = ~(self.random < self.specificity[:, None])  # of what is NaN, all are
        return np.asarray((1 + as_specific.sum(1)) / (1 + self.random.shape[1]))

    @property
    def names(self) -> list[str]:
        """What the modules are called: the names they were given, or their numbers."""
        numbers = self.provenance.get("modules") or range(1, len(self.units) + 1)
        return [item.name or f"module {number}" for item, number in zip(self.units, numbers, strict=True)]

    def describe(self) -> Description:
        """Specificity of each module beside that of random sets of as many channels."""
        rows, kind = [], kind_of(self.provenance)
        for record in self.records():
            numbers = (f"{record[name]:.3g}" for name in ("influence", "specificity", "random_mean"))
            shares = f"{record['above_random']:.0%}", f"{record['p_value']:.3f}"
            rows.append((record["module"], str(record[f"{kind}s"]), *numbers, *shares))
        weak = [name for name, share in zip(self.names, self.above_random, strict=True) if share < _TYPICAL]
        return Description(
            "ModuleQuality",
            f"{origin(self.provenance)}: {counted(len(rows), 'module')}, "
            f"{counted(self.random.shape[1], 'random set')} each",
            table=Table(
                ("module", f"{kind}s", "influence", "specificity", "of random sets", "less specific", "p"), tuple(rows)
            ),
            pictures=(Picture("Specificity of modules (diamonds) and of random sets (dots).", self.plot),),
            warning=f"{first_few(weak, 3)}: no more specific than random {kind}s" if weak else "",
            page="modules",
        )

    def records(self) -> Iterator[dict[str, Any]]:
        """One for each module."""
        above, p_value = self.above_random, self.p_value
        for place, (name, item) in enumerate(zip(self.names, self.units, strict=True)):
            yield {
                "module": name,
                f"{item.kind}s": item.size,
                "influence": float(self.influence[place]),
                "specificity": float(self.specificity[place]),
                "random_mean": float(self.random[place].mean()),
                "above_random": float(above[place]),
                "p_value": float(p_value[place]),
            }

    def plot(self, ax: Axes | None = None) -> Plot[Axes]:
        """The specificity of each module among that of random sets."""
        from .plots import plot_specificity

        return plot_specificity(self.specificity, self.random, self.names, ax=ax)


def measure_quality(
    modules: Sequence[UnitSet], templates: Floats, influence: InfluenceMap, *, n_pairs: int, controls: int, seed: int
) -> ModuleQuality:
    """Influence maps of the modules and of random sets of the same channels, on newly sampled pairs."""
    controls, seed = whole(controls, "controls", 1), whole(seed, "the seed", 0)
    nonempty = [k for k, units in enumerate(modules) if units.size]
    pool = [(layer, channel) for units in modules for layer, channels in units.items() for channel in channels]
    if len(nonempty) < 2:
        raise ProbeError("there is only one module, so none can be compared with the others; fit with more modules")
    rng, kind = np.random.default_rng([seed, len(pool)]), modules[nonempty[0]].kind
    sets = [modules[k] for k in nonempty]
    sets += [_random_set(pool, modules[k].size, rng, kind) for k in nonempty for _ in range(controls)]
    size, images = templates.shape[1:], tuple(influence.generator.image_size[1:])
    if any(whole % part for whole, part in zip(images, size, strict=True)):
        raise ProbeError(
            f"the templates are {size} and the images {images}; fit modules on maps of the images' size, or averaged "
            "down from it, to measure their quality"
        )
    averaged = None if size == images else tuple(map(int, size))
    maps = influence.attribute(n_pairs=n_pairs, seed=seed, units=sets, map_size=averaged)
    values = maps.maps.double().numpy()
    of_modules = values[: len(nonempty)]
    of_controls = values[len(nonempty) :].reshape(len(nonempty), controls, *values.shape[1:])
    insides = [above(templates[k].reshape(1, -1), _QUARTER).reshape(size) for k in nonempty]
    return ModuleQuality(
        maps.units[: len(nonempty)],
        maps.influence[: len(nonempty)].double().numpy(),
        np.array([_specificity(one, inside) for one, inside in zip(of_modules, insides, strict=True)]),
        np.stack([_specificity(several, inside) for several, inside in zip(of_controls, insides, strict=True)]),
        maps.provenance | {"modules": [k + 1 for k in nonempty], "controls": controls},
    )


def _random_set(pool: list[tuple[str, int]], size: int, rng: np.random.Generator, kind: str) -> UnitSet:
    channels_by_layer: dict[str, list[int]] = {}
    for place in sorted(rng.choice(len(pool), size, replace=False)):
        layer, channel = pool[place]
        channels_by_layer.setdefault(layer, []).append(channel)
    return UnitSet({layer: tuple(channels) for layer, channels in channels_by_layer.items()}, kind=kind)


def _specificity(values: Array, inside: np.ndarray[Any, np.dtype[np.bool_]]) -> Array:
    """Of maps (…, H, W): the mean inside over that outside; NaN where either is of no pixels, or nothing is outside."""
    if not inside.any() or inside.all():
        return np.full(values.shape[: values.ndim - inside.ndim], np.nan)
    within, outside = values[..., inside].mean(-1), values[..., ~inside].mean(-1)
    return np.asarray(np.divide(within, outside, out=np.full_like(within, np.nan), where=outside > 0))
