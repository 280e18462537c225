"""What exchanging modules changes, as numbers beside those of random sets, and as pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ..base.display.description import Description, Picture, Table
from ..base.display.plot import Plot
from ..base.display.text import counted, plus_minus
from ..base.errors import ProbeError, first_few, whole
from ..base.formats.provenance import ImagesProvenance, Provenance
from ..base.formats.schema import OpenSchema
from ..base.formats.types import Count
from ..generator.results import Result, kind_of, origin
from ..generator.units import UnitSet
from ..modules.clustering import Array
from .controls import KINDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST = 0.95  # of random sets: a module is separate that is more so than these
_FEWEST = 2  # images of which a mean has a standard error
_COLUMNS = 8  # of a sheet of images
_OWN = 2  # groups of own images, which come first
_MIXED = 1  # the one of them that is as near to the originals as hybrids may be


class Controls(OpenSchema):
    """How many random sets there are of each kind."""

    controls: Count


class ExchangeProvenance(ImagesProvenance, kw_only=True):
    """What an exchange records; ``reach`` is how far all units together bring the image to the source."""

    exchange: Controls
    reach: float


class StandardErrors(NamedTuple):
    """Over pairs."""

    cause: Array
    isolation: Array
    separation: Array
    interaction: Array
    joint: Array


class PValues(NamedTuple):
    """(kinds, K), of interaction (kinds, K, K): the share of the random sets, with the module itself, that do as well;
    kinds are of equal size, and of equal influence."""

    cause: Array
    isolation: Array
    separation: Array
    interaction: Array


@dataclass(frozen=True, eq=False, repr=False)
class Exchanged(Result):
    """What exchanging each of K modules changes; :func:`exchange` says how each number is defined.

    Attributes:
        units: the modules.
        regions: (K, H, W) where each acts.
        influence: (K,) mean |hybrid − base| of pixels.
        cause: (K,) 1, the hybrid is the source inside the region; 0, it is no nearer to it than the base.
        isolation: (K,) 1, the hybrid is the base outside of the region; 0, as much changes as by all units.
        interaction: (K, K) how far what the first changes depends on the second, from 0 to 1; NaN on the diagonal.
        joint: (K, K) influence of both together, over the sum of theirs.
        random_influence, random_cause, random_isolation: (2, controls, K) of random sets, of equal size and of equal
            influence.
        random_interaction, random_joint: (2, controls, K, K) likewise.
        provenance: generator, weights, layers, numbers, seed, versions; ``reach`` is 1 where all units of the layers
            together bring the image to the source.
        groups: what the images are that were searched among own ones: other samples, mixed latents, a group for each
            module, random sets, collages. None, like the rest, without ``images``.
        faithfulness: (groups, images) 1, the generator makes the image itself; 0, its nearest own image is no
            nearer than the originals.
        distances: (groups, images) of the nearest own image, squared, over the variance of own images: 0 is exact.
        images, nearest: (groups, images, C, H, W).
    """

    units: tuple[UnitSet, ...]
    regions: npt.NDArray[np.bool_]
    influence: Array
    cause: Array
    cause_error: Array
    isolation: Array
    isolation_error: Array
    separation_error: Array
    interaction: Array
    interaction_error: Array
    joint: Array
    joint_error: Array
    random_influence: Array
    random_cause: Array
    random_isolation: Array
    random_interaction: Array
    random_joint: Array
    provenance: dict[str, Any]
    groups: tuple[str, ...] | None = None
    faithfulness: Array | None = None
    distances: Array | None = None
    images: Tensor | None = None
    nearest: Tensor | None = None

    SHAPES: ClassVar[Mapping[str, str]] = {
        "units": "list K",
        "regions": "bool K size*",
        **dict.fromkeys(("influence", "cause", "cause_error", "isolation", "isolation_error"), "float K"),
        "separation_error": "float K",
        **dict.fromkeys(("interaction", "interaction_error", "joint", "joint_error"), "float K K"),
        **dict.fromkeys(("random_influence", "random_cause", "random_isolation"), "float 2 controls K"),
        **dict.fromkeys(("random_interaction", "random_joint"), "float 2 controls K K"),
        "groups": "list groups",
        **dict.fromkeys(("faithfulness", "distances"), "float groups images"),
        **dict.fromkeys(("images", "nearest"), "float groups images C size*"),
    }
    ADDED: ClassVar[tuple[str, ...]] = ("groups", "faithfulness", "distances", "images", "nearest")
    PROVENANCE: ClassVar[type[Provenance]] = ExchangeProvenance

    def __post_init__(self) -> None:
        if self.groups is not None:
            object.__setattr__(self, "groups", tuple(self.groups))  # a list, in a file

    def __len__(self) -> int:
        return len(self.units)

    @property
    def names(self) -> list[str]:
        return [item.name or f"module {number}" for number, item in enumerate(self.units, 1)]

    @property
    def separation(self) -> Array:
        """(K,) cause + isolation − 1: 1 is a part of its own; no unit at all has 0, and so have all together."""
        return self.cause + self.isolation - 1

    @property
    def random_separation(self) -> Array:
        """(2, controls, K) of random sets of equal size, and of equal influence."""
        return self.random_cause + self.random_isolation - 1

    @property
    def standard_error(self) -> StandardErrors:
        return StandardErrors(
            self.cause_error, self.isolation_error, self.separation_error, self.interaction_error, self.joint_error
        )

    @property
    def p_values(self) -> PValues:
        """One-sided: larger cause, isolation and separation, smaller interaction. 1 where nothing is measured."""
        return PValues(
            _p_values(self.cause, self.random_cause),
            _p_values(self.isolation, self.random_isolation),
            _p_values(self.separation, self.random_separation),
            _p_values(-self.interaction, -self.random_interaction),
        )

    def by_group(self) -> list[dict[str, Any]]:
        """For each group of images how faithful they are, with standard errors over pairs: by itself, and less that of
        mixed latents of the same pairs, which are own images. Empty without ``images``."""
        if self.groups is None or self.faithfulness is None or self.distances is None:
            return []
        rows = []
        for group, values, distances in zip(self.groups, self.faithfulness, self.distances, strict=True):
            below = self.faithfulness[_MIXED] - values
            rows.append(
                {
                    "group": group,
                    "faithfulness": float(values.mean()),
                    "standard_error": _error(values),
                    "below_own": float(below.mean()),
                    "below_own_error": _error(below),
                    "distance": float(distances.mean()),
                }
            )
        return rows

    def describe(self) -> Description:
        """The numbers of each module beside those of random sets, and pictures."""
        about, kind = self.provenance, kind_of(self.provenance)
        controls = about["exchange"]["controls"]
        return Description(
            "Exchanged",
            f"{origin(about)}: {counted(len(self), 'module')}, {counted(about.get('n_pairs', 0), 'pair')}, "
            f"{counted(controls, 'random set')} each of equal size and of equal influence",
            facts=tuple(self._facts()),
            table=Table(
                (
                    "module",
                    f"{kind}s",
                    "influence",
                    "cause",
                    "isolation",
                    "separation",
                    "of random",
                    "p",
                    "interaction",
                    "of random",
                    *(() if self.groups is None else ("faithfulness",)),
                ),
                tuple(self._rows(kind)),
                "Separation is cause + isolation − 1. Random sets of as much influence; p, that of the separation.",
            ),
            pictures=tuple(self._pictures()),
            warning=self.warning(),
            page="exchange",
        )

    def warning(self) -> str:
        """Which modules are no parts of their own; empty if all are."""
        random = self.random_separation
        if not random.shape[1]:
            return ""
        beaten = (random < self.separation).mean(1).min(0)
        weak = [name for name, share in zip(self.names, beaten, strict=True) if share < _MOST]
        return f"{first_few(weak, 3)}: no more separate than random {kind_of(self.provenance)}s" if weak else ""

    def _facts(self) -> Iterator[tuple[str, str]]:
        yield "all units", f"bring the image {self.provenance['reach']:.0%} of the way to the source"
        rows = self.by_group()
        if others := [row for row in rows if row["group"] not in self.names]:
            yield "faithfulness", ", ".join(f"{row['group']} {row['faithfulness']:.2f}" for row in others)

    def _rows(self, kind: str) -> Iterator[tuple[str, ...]]:
        for record in self.records():
            yield (
                record["module"],
                str(record[f"{kind}s"]),
                f"{record['influence']:.3g}",
                *(
                    plus_minus(record[name], record[f"{name}_error"], ".2f")
                    for name in ("cause", "isolation", "separation")
                ),
                _shown(record["random_separation"]),
                _shown(record["p_separation"], ".3f"),
                _shown(record["interaction"]),
                _shown(record["random_interaction"]),
                *(() if self.groups is None else (f"{record['faithfulness']:.2f}",)),
            )

    def _pictures(self) -> Iterator[Picture]:
        yield Picture("Cause and isolation of the modules (diamonds) and of random sets (dots).", self.plot)
        if len(self) > 1:
            yield Picture("How far what a module changes depends on each other.", self.plot_interaction)
        if self.groups is not None:
            yield Picture("How faithful images are: 1 is one that the generator makes itself.", self.plot_faithfulness)
            yield Picture("Images, and below each the nearest own image that was found.", self.plot_nearest)

    def records(self) -> Iterator[dict[str, Any]]:
        """One for each module; of random sets the mean over those of equal influence."""
        p_values = self.p_values
        faithful = None if self.faithfulness is None else self.faithfulness[_OWN : _OWN + len(self)].mean(1)
        for k, (name, item) in enumerate(zip(self.names, self.units, strict=True)):
            others = np.arange(len(self)) != k
            several, random = bool(others.any()), bool(self.random_cause.shape[1])
            yield {
                "module": name,
                f"{item.kind}s": item.size,
                "area": float(self.regions[k].mean()),
                "influence": float(self.influence[k]),
                "random_influence": float(self.random_influence[1, :, k].mean()) if random else None,
                "cause": float(self.cause[k]),
                "cause_error": float(self.cause_error[k]),
                "isolation": float(self.isolation[k]),
                "isolation_error": float(self.isolation_error[k]),
                "separation": float(self.separation[k]),
                "separation_error": float(self.separation_error[k]),
                "random_separation": float(self.random_separation[1, :, k].mean()) if random else None,
                "p_separation": float(p_values.separation[1, k]) if random else None,
                "p_separation_equal_size": float(p_values.separation[0, k]) if random else None,
                "interaction": float(self.interaction[k, others].mean()) if several else None,
                "random_interaction": (
                    float(self.random_interaction[1, :, k, others].mean()) if several and random else None
                ),
                "p_interaction": float(p_values.interaction[1, k, others].max()) if several and random else None,
                "faithfulness": None if faithful is None else float(faithful[k]),
            }

    def _json(self) -> dict[str, Any]:
        """Everything but images."""
        return {
            "rows": list(self.records()),
            "interaction": self.interaction,
            "interaction_error": self.interaction_error,
            "joint": self.joint,
            "joint_error": self.joint_error,
            "faithfulness": self.by_group(),
            "provenance": self.provenance,
        }

    def plot(self, ax: Axes | None = None) -> Plot[Axes]:
        """Cause against isolation, among those of random sets."""
        from .plots import plot_exchange

        random = {
            f"random, {kind}": (self.random_cause[place], self.random_isolation[place])
            for place, kind in enumerate(KINDS)
        }
        return plot_exchange(
            (self.cause, self.cause_error), (self.isolation, self.isolation_error), random, self.names, ax=ax
        )

    def plot_interaction(self, ax: Axes | None = None) -> Plot[Axes]:
        """How far what each module changes (a row) depends on each other one (a column)."""
        from .plots import plot_interaction

        return plot_interaction(self.interaction, self.names, ax=ax)

    def plot_faithfulness(self, ax: Axes | None = None) -> Plot[Axes]:
        """How faithful the images of every group are."""
        from .plots import plot_faithfulness

        groups, values, _, _ = self._searched()
        return plot_faithfulness(values, groups, ax=ax)

    def plot_nearest(self, ax: Axes | None = None, *, most: int = _COLUMNS) -> Plot[Axes]:
        """The images of every group and, below each, the nearest own image; of the first ``most`` pairs."""
        from ..base.drawing import plot_images

        groups, _, images, nearest = self._searched()
        rows = np.stack([images.numpy(), nearest.numpy()], 1)[:, :, : whole(most, "most", 1)]
        low, high = self.provenance["image_range"]
        titles = [title for group in groups for title in (group, "nearest own")]
        return plot_images(rows.reshape(-1, *rows.shape[2:]), titles, (low, high), ax=ax)

    def _searched(self) -> tuple[tuple[str, ...], Array, Tensor, Tensor]:
        if self.groups is None or self.faithfulness is None or self.images is None or self.nearest is None:
            raise ProbeError("no hybrids were searched among own images; call exchange(..., images=8)")
        return self.groups, self.faithfulness, self.images, self.nearest


def _p_values(values: Array, random: Array) -> Array:
    """(kinds, …) the share of random values (kinds, controls, …), with the value itself, that are as large."""
    as_large = ~(random < values)  # of what is NaN, all are
    return np.asarray((1 + as_large.sum(1)) / (1 + random.shape[1]))


def _error(values: Array) -> float:
    return float(values.std(ddof=1) / len(values) ** 0.5) if len(values) >= _FEWEST else float("nan")


def _shown(value: float | None, form: str = ".2f") -> str:
    return "–" if value is None else f"{value:{form}}"
