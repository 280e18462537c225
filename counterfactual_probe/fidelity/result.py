"""The result of a fidelity test: a table that prints, saves and plots itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from torch import Tensor

from ..base.display.description import Description, Picture, Table
from ..base.display.plot import Plot
from ..base.display.text import plus_minus
from ..base.formats.provenance import ImagesProvenance, Provenance
from ..base.formats.schema import OpenSchema
from ..base.formats.types import Count, Name, Text
from ..generator.results import Result, units_to_json
from ..generator.units import UnitSet
from .frechet import Floats, few_samples

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Features(OpenSchema):
    """What a Fréchet distance compares."""

    name: Text


class FidelityProvenance(ImagesProvenance, kw_only=True):
    """What distances record."""

    generator: Text
    layers: list[Name]
    features: Features
    n_images: Count
    n_features: Count = 0
    real: Any


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
        reference_error: (groups,) the standard error of precision over reference images, NaN for the reference itself
            and where there are too few; None in files of earlier versions.
    """

    groups: tuple[str, ...]
    distances: Floats
    replicates: Floats
    realism: Floats
    inside: Floats
    examples: Tensor
    units: tuple[UnitSet, ...]
    provenance: dict[str, Any]
    reference_error: Floats | None = None

    SHAPES: ClassVar[Mapping[str, str]] = {
        "groups": "list groups",
        "distances": "float groups groups",
        "replicates": "float resamples groups groups",
        "realism": "float groups n",
        "inside": "float groups n",
        "examples": "float groups kept C H W",
        "reference_error": "float groups",
    }
    ADDED: ClassVar[tuple[str, ...]] = ("reference_error",)
    PROVENANCE: ClassVar[type[Provenance]] = FidelityProvenance

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", tuple(self.groups))  # JSON has lists alone

    def describe(self) -> Description:
        """The table of S003 Table 2, the distances as bars, and examples of each group."""
        about = self.provenance
        return Description(
            "Fidelity",
            f"{about['generator']}, layer {', '.join(about['layers'])}, features {about['features']['name']}, "
            f"{about['n_images']} images each; {self.unit_words}",
            table=Table(self.head, tuple(self.rows())),
            pictures=(
                Picture("Fréchet distances ± one standard error.", self.plot),
                Picture("Images of every group with their realism, red where outside.", self.plot_examples),
            ),
            warning=few_samples(about["n_images"], about.get("n_features", 0)) or "",
            page="fidelity",
        )

    @property
    def has_real(self) -> bool:
        return self.provenance["real"] is not None

    @property
    def unit(self) -> float:
        """The unit of the table: the distance of generated from real images, or 1 without real ones."""
        return float(self.distances[0, 1]) if self.has_real else 1.0

    @property
    def unit_words(self) -> str:
        if not self.has_real:
            return "no real images, so Fréchet distances are not normalised"
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
        """(groups,) share of images inside the estimated manifold of the reference; NaN for the reference itself."""
        return np.asarray(self.inside.mean(1))

    @property
    def precision_standard_error(self) -> Floats:
        """(groups,) over images and over reference images; in files of earlier versions over images alone."""
        of_images = self.inside.std(1, ddof=1) / np.sqrt(self.inside.shape[1])
        return np.asarray(of_images if self.reference_error is None else np.hypot(of_images, self.reference_error))

    @property
    def head(self) -> tuple[str, ...]:
        return ("", *self.groups, "precision", "median realism")

    def rows(self) -> list[tuple[str, ...]]:
        """The cells of the table, below the diagonal as in the paper."""
        table, error, rows = self.table, self.standard_error, []
        for i, name in enumerate(self.groups):
            below = [plus_minus(table[i, j], error[i, j], ".3f") for j in range(i)]
            cells = [*below, "0", *[""] * (len(self.groups) - i - 1)]
            real = "–" if i == 0 else plus_minus(self.precision[i], self.precision_standard_error[i], ".3f")
            rows.append((name, *cells, real, "–" if i == 0 else f"{np.median(self.realism[i]):.2f}"))
        return rows

    def records(self) -> Iterator[dict[str, Any]]:
        """One for each pair of groups, with the distance as it is and over the unit."""
        for i, name in enumerate(self.groups):
            for j in range(i):
                yield {
                    "group": name,
                    "other": self.groups[j],
                    "frechet_distance": float(self.distances[i, j]),
                    "normalised": float(self.table[i, j]),
                    "standard_error": float(self.standard_error[i, j]),
                    "images": self.provenance["n_images"],
                }

    def _json(self) -> dict[str, Any]:
        """Everything but images."""
        return {
            "groups": self.groups,
            "frechet_distances": self.distances,
            "divided_by": self.unit,
            "table": self.table,
            "standard_error": self.standard_error,
            "precision": self.precision,
            "median_realism": np.median(self.realism, 1),
            "units": units_to_json(self.units),
            "provenance": self.provenance,
        }

    def plot(self, ax: Axes | None = None) -> Plot[Axes]:
        """Distance of every group from the first and from the generated images, with ± one standard error."""
        from .plots import plot_fidelity

        errors = self.standard_error if len(self.replicates) > 1 else None
        return plot_fidelity(self.table, errors, self.groups, has_real=self.has_real, ax=ax)

    def plot_examples(self, ax: Axes | None = None) -> Plot[Axes]:
        """Images of every group, each with its realism."""
        from .plots import plot_examples

        low, high = self.provenance["image_range"]
        inside = self.inside.astype(bool)
        return plot_examples(self.examples.numpy(), self.groups, self.realism, inside, (low, high), ax=ax)
