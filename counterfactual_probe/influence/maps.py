"""Influence maps of unit sets, with what is needed to trust and repeat them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ..base.display.description import Description, Picture, Table
from ..base.display.plot import Plot
from ..base.display.text import counted
from ..base.errors import ProbeError, level, required, whole
from ..base.formats.provenance import Provenance
from ..base.formats.types import Count, Name, Number
from ..generator.latents import PAIR_DIGESTS, fingerprint
from ..generator.results import Result, origin
from ..generator.units import UnitSet, titles
from .arrays import MapArrays
from .calls import by_call, calls_of, plot_calls

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LISTED, _SHOWN = 5, 24  # unit sets in the table, and maps in the picture of a notebook


# Entries of the provenance of maps that are pooled: what other pairs bring with them, and what is compared apart.
_MAY_DIFFER = {"n_pairs", "seed", "pairs", "pair_digests", "tolerance", "executor", "hybrids_per_eval", "ranks"}
_MAY_DIFFER |= {"device", "versions", "generator", "blocks", "components", "first_linear_difference", "convolutions"}


class MapsProvenance(Provenance, kw_only=True):
    """What influence maps record."""

    n_pairs: Count = 0
    seed: int | list[int | None] | None = None
    tolerance: Number | None = None
    pair_digests: list[Name] | None = None


@dataclass(frozen=True, eq=False, repr=False)
class InfluenceMaps(Result, MapArrays):
    """Influence maps of unit sets, with what is needed to trust and repeat them. On the CPU.

    Attributes:
        maps: (sets, H, W) float32, or of the output's dimensions if these are others: mean over pairs, then over
            colours, of |hybrid − original|, in units of the image's range.
        standard_error: (sets, H, W), of ``maps``; NaN when there was a single pair.
        influence: (sets,), mean of a map over its pixels (S003 §3.3).
        influence_standard_error: (sets,).
        n_pairs: (sets,), pairs of latents behind each map.
        units: the unit sets, in order.
        provenance: generator, weights, layers, seed, range, versions, precision.
        normalised: (sets, H, W) with ``normalise="pair"``: mean of pair maps of unit L2 norm each.
        zero_maps: (sets,) pairs that changed nothing, which ``normalised`` leaves out.
        block_sums: (sets, blocks, H, W) with ``blocks``: sums of pair maps, of pair i in block i mod blocks.
            Blocks are independent, so statistics of the maps can be bootstrapped over them.
        normalised_block_sums: the same of pair maps of unit L2 norm, with ``normalise="pair"`` too.
        components: (components, C, H, W) with ``components``: the leading principal components of what hybrids change.
        energy: (sets, components) mean share of a change's squared norm in each, over pairs that change anything.
        energy_block_sums: (sets, blocks, components) sums of these shares.
        resampled_components: (resamples, components, C, H, W) with ``components`` and ``blocks``: those of random
            halves of the pairs, for confidence. None where components were given.
        resampled_energy_block_sums: (sets, blocks, resamples, components) sums of the shares in these.
    """

    units: tuple[UnitSet, ...]
    provenance: dict[str, Any]

    SHAPES: ClassVar[Mapping[str, str]] = {
        "maps": "float sets size*",
        "standard_error": "float sets size*",
        "influence": "float sets",
        "influence_standard_error": "float sets",
        "n_pairs": "count sets",
        "zero_maps": "count sets",
        "normalised": "float sets size*",
        "block_sums": "float sets blocks size*",
        "normalised_block_sums": "float sets blocks size*",
        "components": "float components _ size*",
        "energy": "float sets components",
        "energy_block_sums": "float sets blocks components",
        "resampled_components": "float resamples components _ size*",
        "resampled_energy_block_sums": "float sets blocks resamples components",
        "units": "list sets",
    }
    ADDED: ClassVar[tuple[str, ...]] = ("resampled_components", "resampled_energy_block_sums")
    PROVENANCE: ClassVar[type[Provenance]] = MapsProvenance

    def __len__(self) -> int:
        return len(self.units)

    @property
    def relative_error(self) -> Tensor:
        """(sets,) ‖standard error‖₂ / ‖map‖₂; 0 for a set that never changed anything."""
        norms = self.maps.flatten(1).double().norm(dim=1)
        errors = self.standard_error.flatten(1).double().norm(dim=1)
        return torch.where(norms > 0, errors / norms, 0.0).float()

    def interval(self, confidence: float = 0.95) -> tuple[Tensor, Tensor]:
        """(sets,) and (sets,), the ends of an interval around each influence, for the pairs that there are.

        >>> low, high = maps.interval()  # doctest: +SKIP

        It is Student's t interval of the logarithm, m · exp(± t · standard error / m): influence is positive, and a few
        pairs have much of it, so that an interval of equal sides ends too low. With 16, 64 and 256 pairs those of 95 %
        hold the truth as often as docs/evidence.md says. From 0 to ∞ of a single pair.
        """
        confidence = level(confidence, "confidence")
        return influence_interval(self.influence, self.influence_standard_error, self.n_pairs, confidence)

    @property
    def missed(self) -> tuple[UnitSet, ...]:
        """The unit sets that were still above the tolerance when the pairs ran out."""
        tolerance = self.provenance.get("tolerance")
        if tolerance is None:
            return ()
        above = (~(self.relative_error <= tolerance)).tolist()
        return tuple(units for units, missed in zip(self.units, above, strict=True) if missed)

    @property
    def strongest(self) -> list[int]:
        """Indices of the unit sets, in falling order of influence."""
        order: list[int] = torch.argsort(self.influence, descending=True, stable=True).tolist()
        return order

    def describe(self) -> Description:
        """How strong the unit sets are, with standard errors, and the maps of the strongest."""
        size = "×".join(map(str, self.maps.shape[1:]))
        least, most = (int(value) for value in self.n_pairs.aminmax())
        pairs = f"{counted(least, 'pair')} each" if least == most else f"{least} to {most} pairs"
        if (seed := self.provenance.get("seed")) is not None:
            pairs += f", seed {seed}"
        return Description(
            "InfluenceMaps",
            f"{origin(self.provenance)}: {counted(len(self), 'unit set')} of {size}, {pairs}",
            facts=self._facts(),
            table=self._strongest(_LISTED),
            pictures=(
                Picture(
                    f"Maps of the {min(_SHOWN, len(self))} strongest unit sets, each on its own scale.",
                    lambda: self.plot(most=_SHOWN),
                ),
            ),
            warning=self._warning(),
            page="modules",
        )

    def _facts(self) -> tuple[tuple[str, str], ...]:
        low, middle, high = (float(self.influence.quantile(q)) for q in (0, 0.5, 1))
        dead = int((self.influence == 0).sum())
        without = f"; {dead} without any effect" if dead else ""
        errors = self.relative_error
        return (
            ("influence", f"{low:.3g} to {high:.3g}, median {middle:.3g}{without}"),
            ("relative error", f"median {float(errors.median()):.1%}, largest {float(errors.max()):.1%}"),
        )

    def _strongest(self, most: int) -> Table:
        errors, names = self.relative_error, titles(self.units)
        rows = []
        for place in self.strongest[:most]:
            value, error = float(self.influence[place]), float(self.influence_standard_error[place])
            rows.append((names[place], f"{value:.3g} ± {error:.2g}", f"{float(errors[place]):.1%}"))
        note = f"The {most} strongest of {len(self)}." if len(self) > most else ""
        return Table(("units", "influence ± standard error", "relative error"), tuple(rows), note)

    def _warning(self) -> str:
        if missed := self.missed:
            tolerance, largest = self.provenance["tolerance"], float(self.relative_error.max())
            return (
                f"{len(missed)} of {len(self)} maps are above the tolerance of {tolerance:g} (largest error "
                f"{largest:.2g}); allow more pairs"
            )
        return "maps of a single pair have no standard error; take more pairs" if int(self.n_pairs.min()) == 1 else ""

    def records(self) -> Iterator[dict[str, Any]]:
        """One for each unit set, in order: how many units, influence, standard error, relative error and pairs."""
        errors = self.relative_error
        for place, (name, item) in enumerate(zip(titles(self.units), self.units, strict=True)):
            yield {
                "units": name,
                "layers": "; ".join(sorted(item)),
                f"{item.kind}s": item.size,
                "influence": float(self.influence[place]),
                "standard_error": float(self.influence_standard_error[place]),
                "relative_error": float(errors[place]),
                "n_pairs": int(self.n_pairs[place]),
            }

    def plot(self, ax: Axes | None = None, *, most: int = 64) -> Plot[Axes]:
        """A mosaic of the maps of largest influence, each with its unit's number and on its own scale."""
        from ..base.drawing import plot_mosaic

        order, names = self.strongest[: whole(most, "most", 1)], titles(self.units)
        few = len(order) <= _SHOWN
        return plot_mosaic(
            self.maps[order].numpy(),
            labels=[names[place] for place in order],
            across=min(8, len(order)) if few else None,
            cell=0.9 if few else 0.5,
            ax=ax,
        )

    def by_call(self) -> Tensor:
        """The maps of each unit of the calls of one layer: (calls, units, H, W), for units asked of each call alone.

        >>> cp.InfluenceMap(gen, gen.calls("unet.mid_block")).attribute(n_pairs=16).by_call()  # doctest: +SKIP
        """
        return by_call(self.maps, len(calls_of(self.units)))

    def plot_calls(self, ax: Axes | None = None) -> Plot[Axes]:
        """Influence against the number of the call, of the same maps; bars are two standard errors."""
        return plot_calls(self.units, self.influence, self.influence_standard_error, ax)

    def without_blocks(self) -> InfluenceMaps:
        """The same maps without the block sums, which take many times their room."""
        return dataclasses.replace(
            self,
            block_sums=None,
            normalised_block_sums=None,
            energy_block_sums=None,
            resampled_energy_block_sums=None,
        )

    def pooled(self, other: InfluenceMaps) -> InfluenceMaps:
        """The maps over the pairs of both, which must be independent: other latents, everything else the same.

        >>> more = cp.InfluenceMap(gen, "main.8").attribute(n_pairs=256, seed=1)  # doctest: +SKIP
        >>> maps = maps.pooled(more)  # doctest: +SKIP
        """
        self._require_alike(other)
        self._require_other_pairs(other)
        n, m = self.n_pairs, other.n_pairs
        of_both = _pooled_moments((self.maps, self.standard_error), n, (other.maps, other.standard_error), m)
        influence = _pooled_moments(
            (self.influence, self.influence_standard_error), n, (other.influence, other.influence_standard_error), m
        )
        alive, others = (n - self.zero_maps).clamp_min(0), (m - other.zero_maps).clamp_min(0)
        share = (others / (alive + others).clamp_min(1)).float()

        def mean(one: Tensor | None, two: Tensor | None) -> Tensor | None:
            """Of pairs that change anything."""
            return None if one is None or two is None else one + (two - one) * share.view(-1, *[1] * (one.dim() - 1))

        def added(one: Tensor | None, two: Tensor | None) -> Tensor | None:
            return None if one is None or two is None else one + two

        provenance = self.provenance | {
            "n_pairs": self.provenance["n_pairs"] + other.provenance["n_pairs"],
            "seed": [*_seeds_of(self), *_seeds_of(other)],
        }
        if digests := _digests_of(self) | _digests_of(other):
            provenance["pair_digests"] = sorted(digests)[:PAIR_DIGESTS]
        return InfluenceMaps(
            *of_both,
            *influence,
            n + m,
            self.zero_maps + other.zero_maps,
            self.units,
            provenance,
            normalised=mean(self.normalised, other.normalised),
            block_sums=added(self.block_sums, other.block_sums),
            normalised_block_sums=added(self.normalised_block_sums, other.normalised_block_sums),
            components=self.components,
            energy=mean(self.energy, other.energy),
            energy_block_sums=added(self.energy_block_sums, other.energy_block_sums),
            resampled_components=self.resampled_components,
            resampled_energy_block_sums=added(self.resampled_energy_block_sums, other.resampled_energy_block_sums),
        )

    def _require_other_pairs(self, other: InfluenceMaps) -> None:
        """Raise a ProbeError if both are known to hold the same pairs, which say nothing new the second time."""
        both_drawn = all(maps.provenance.get("pairs") == "drawn" for maps in (self, other))
        shared = set(_seeds_of(self)) & set(_seeds_of(other))
        if both_drawn and shared:
            raise ProbeError(
                f"these maps and the others both hold pairs of seed {min(map(str, shared))}, so they are not "
                "independent; pool maps of other seeds, or take more pairs in one call"
            )
        if same := _digests_of(self) & _digests_of(other):
            few = max(len(_digests_of(maps)) for maps in (self, other)) < PAIR_DIGESTS
            raise ProbeError(
                f"these maps and the others both hold {len(same)}{'' if few else ' or more'} of the given pairs of "
                "latents, so they are not independent; pool maps of other latents"
            )
        if bool(self.maps.any()) and all(
            torch.equal(one.nan_to_num(), two.nan_to_num())
            for one, two in (
                (self.n_pairs, other.n_pairs),
                (self.maps, other.maps),
                (self.influence_standard_error, other.influence_standard_error),
            )
        ):
            raise ProbeError(
                "these maps and the others are equal to the last bit, so they are of the same pairs; pool maps of "
                "other latents"
            )

    def _require_alike(self, other: InfluenceMaps) -> None:
        required(other, InfluenceMaps, "what maps are pooled with", "give influence maps of the same generator")
        for name, one, two in (
            ("unit sets", self.units, other.units),
            ("map size", self.maps.shape[1:], other.maps.shape[1:]),
            ("weights", *(maps.provenance.get("weights_sha256") for maps in (self, other))),
            ("blocks", *(None if maps.block_sums is None else maps.block_sums.shape[1] for maps in (self, other))),
            ("normalise", self.normalised is None, other.normalised is None),
            (
                "components",
                *(None if maps.components is None else fingerprint(maps.components) for maps in (self, other)),
            ),
        ):
            self._require_equal(str(name), one, two)
        about, others = ({"axis": "channel"} | maps.provenance for maps in (self, other))
        for entry in sorted((about.keys() | others.keys()) - _MAY_DIFFER):
            self._require_equal(entry, about.get(entry), others.get(entry))

    @staticmethod
    def _require_equal(name: str, one: Any, two: Any) -> None:
        if one != two:
            raise ProbeError(
                f"these maps and the others differ in their {name} ({one!r:.60} and {two!r:.60}); pool maps of "
                "the same call on other latents"
            )


def _pooled_moments(
    one: tuple[Tensor, Tensor], n: Tensor, two: tuple[Tensor, Tensor], m: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean and standard error of n + m values from those of n and of m (Chan et al. 1983)."""
    (mean, error), (other, other_error) = ([value.double() for value in both] for both in (one, two))
    shape = (-1, *[1] * (mean.dim() - 1))
    n, m = n.double().view(shape), m.double().view(shape)
    # One value has no standard error, and no deviation from its mean.
    deviation = torch.where(n > 1, error**2 * n * (n - 1), 0.0) + torch.where(m > 1, other_error**2 * m * (m - 1), 0.0)
    gap, whole = other - mean, n + m
    deviation += gap**2 * n * m / whole
    return (mean + gap * m / whole).float(), (deviation / (whole * (whole - 1))).sqrt().float()


def _digests_of(maps: InfluenceMaps) -> set[str]:
    return set(maps.provenance.get("pair_digests") or ())


def _seeds_of(maps: InfluenceMaps) -> list[int | None]:
    seed = maps.provenance.get("seed")
    return seed if isinstance(seed, list) else [seed]


def influence_interval(
    influence: Tensor, standard_error: Tensor, n_pairs: Tensor, confidence: float
) -> tuple[Tensor, Tensor]:
    """The ends, (sets,) and (sets,), of Student's t interval of the logarithm: see :meth:`InfluenceMaps.interval`."""
    from scipy.stats import t

    freedom = (n_pairs.double() - 1).clamp_min(1)
    quantile = torch.from_numpy(np.asarray(t.ppf((1 + confidence) / 2, freedom.numpy())))
    mean, error = influence.double(), standard_error.double()
    reach = torch.where(mean > 0, quantile * error / mean, 0.0).nan_to_num(nan=torch.inf)
    return mean * (-reach).exp(), torch.where(mean > 0, mean * reach.exp(), 0.0)
