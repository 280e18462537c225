"""What a fidelity test found: a table that prints, saves and plots itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ..generator.results import Result
from ..generator.units import UnitSet
from .frechet import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False, repr=False)
class Fidelity(Result):
    """Fréchet distances between groups of images, and how real the images of each are.

    Attributes:
        groups: real images, if there are any, by what they are; generated; generated again, of other latents; hybrids.
        distances: (groups, groups) Fréchet distances of the features.
        replicates: (resamples, groups, groups) the same of bootstrap samples; their spread is what counts, for they are
            all larger: images that are drawn twice make distributions narrower.
        realism: (groups, n) of every image among those of the first group, NaN for that (Kynkäänniemi et al., eq. 3).
        inside: (groups, n) 1 where the image lies in the ball of one of the first group's, 0 elsewhere.
        examples: (groups, kept, C, H, W) the first images of each group.
        units: the unit sets of the hybrids.
        provenance: generator, layers, features with their weights and preprocessing, numbers, seed, versions.
    """

    groups: tuple[str, ...]
    distances: Floats
    replicates: Floats
    realism: Floats
    inside: Floats
    examples: Tensor
    units: tuple[UnitSet, ...]
    provenance: dict[str, Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", tuple(self.groups))  # JSON has lists alone

    def __repr__(self) -> str:
        about = self.provenance
        head = (
            f"Fidelity({about['generator']}, layer {', '.join(about['layers'])}, features {about['features']['name']}, "
            f"{about['n_images']} images each; {self.unit_words})"
        )
        return "\n".join([head, *_aligned([self.head, *self.rows()])])

    @property
    def has_real(self) -> bool:
        return self.provenance["real"] is not None

    @property
    def unit(self) -> float:
        """What the table is divided by: the distance of generated from real images, or 1 without real ones."""
        return float(self.distances[0, 1]) if self.has_real else 1.0

    @property
    def unit_words(self) -> str:
        if not self.has_real:
            return "no real images, so Fréchet distances are as they are"
        return f"Fréchet distances over that of generated from {self.groups[0]}, {self.unit:.4g}"

    @property
    def table(self) -> Floats:
        """(groups, groups) distances, over that of generated from real images where there are any (S003 Table 2)."""
        return self.distances / self.unit

    @property
    def standard_error(self) -> Floats:
        """(groups, groups) of ``table``: standard deviation over bootstrap samples. NaN with fewer than 2 of them."""
        if len(self.replicates) < 2:
            return np.full_like(self.distances, np.nan)
        units = self.replicates[:, 0, 1][:, None, None] if self.has_real else 1.0
        return np.asarray((self.replicates / units).std(0, ddof=1))

    @property
    def precision(self) -> Floats:
        """(groups,) share of images inside what is taken for real; NaN for the reference itself."""
        return np.asarray(self.inside.mean(1))

    @property
    def precision_standard_error(self) -> Floats:
        """(groups,) over images, for the reference images that there are."""
        return np.asarray(self.inside.std(1, ddof=1) / np.sqrt(self.inside.shape[1]))

    @property
    def head(self) -> tuple[str, ...]:
        return ("", *self.groups, "precision", "median realism")

    def rows(self) -> list[tuple[str, ...]]:
        """The cells of the table, below the diagonal as in the paper."""
        table, error, found = self.table, self.standard_error, []
        for i, name in enumerate(self.groups):
            below = [_with_error(table[i, j], error[i, j]) for j in range(i)]
            cells = [*below, "0", *[""] * (len(self.groups) - i - 1)]
            real = "–" if i == 0 else _with_error(self.precision[i], self.precision_standard_error[i])
            found.append((name, *cells, real, "–" if i == 0 else f"{np.median(self.realism[i]):.2f}"))
        return found

    def to_csv(self) -> str:
        """One line per pair of groups, with the distance as it is and over the unit."""
        lines = ["group,other,frechet_distance,normalised,standard_error,images"]
        for i, name in enumerate(self.groups):
            for j in range(i):
                values = (self.distances[i, j], self.table[i, j], self.standard_error[i, j])
                lines.append(
                    ",".join([_quoted(name), _quoted(self.groups[j]), *(f"{value:.9g}" for value in values)])
                    + f",{self.provenance['n_images']}"
                )
        return "\n".join(lines) + "\n"

    def to_json(self) -> dict[str, Any]:
        """Everything but images, for a JSON file; None where there is no number."""
        return {
            "groups": list(self.groups),
            "frechet_distances": self.distances.tolist(),
            "divided_by": self.unit,
            "table": self.table.tolist(),
            "standard_error": [[_number(value) for value in row] for row in self.standard_error],
            "precision": [_number(value) for value in self.precision],
            "median_realism": [_number(value) for value in np.median(self.realism, 1)],
            "units": [{layer: list(channels) for layer, channels in units.items()} for units in self.units],
            "provenance": self.provenance,
        }

    def plot(self, ax: Axes | None = None) -> tuple[Figure, Axes]:
        """Distance of every group from the first and from the generated images, with ± one standard error."""
        from .plots import plot_fidelity

        return plot_fidelity(self, ax=ax)

    def plot_examples(self, ax: Axes | None = None) -> tuple[Figure, Axes]:
        """Images of every group, each with its realism."""
        from .plots import plot_examples

        return plot_examples(self, ax=ax)


def _with_error(value: float, error: float) -> str:
    return f"{value:.3f}" if np.isnan(error) else f"{value:.3f} ± {error:.3f}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _number(value: float) -> float | None:
    """JSON has neither NaN nor infinity."""
    return float(value) if np.isfinite(value) else None
