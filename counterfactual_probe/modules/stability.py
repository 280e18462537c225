"""How reproducible modules are: between subsets of channels, and between samples of latents."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np

from ..base.display.description import Description, Picture, Table
from ..base.display.plot import Plot
from ..base.display.text import counted, plus_minus
from ..base.errors import ProbeError, whole
from ..base.formats.provenance import Provenance
from ..generator.results import Result, origin
from .clustering import (
    Array,
    Floats,
    Labels,
    Method,
    ModulesProvenance,
    compare_labels,
    cosine_matrix,
    factorise,
    factorise_quickly,
    live_rows,
    match_labels,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Clusterer: TypeAlias = Callable[[Floats], tuple[Labels, Floats]]
# Clusters as :meth:`ModuleFinder.fit` does, so that an index computed from two fits is the one reported here.
ExactClusterer: TypeAlias = Callable[[Floats], tuple[Labels, Floats, Floats]]

_NO_OTHER = (
    "subsets of the channels say nothing about other latents; give other=, the maps of another sample of latents"
)


@dataclass(frozen=True, eq=False, repr=False)
class Stability(Result):
    """How reproducible modules are, for several numbers of modules K.

    Attributes:
        n_modules: (K,) the numbers of modules tried.
        consistency: (K, repetitions) share of channels with the same label in two clusterings of
            overlapping thirds of the channels (S003 Fig. 9, left; conventions 12).
        cosine: (K, repetitions) mean cosine of their matched templates (Fig. 9, right).
        ari: (K,) adjusted Rand index of the labels between two samples of latents (1: the same
            modules; 0: chance), and None without a second sample. The papers do not report it.
        draw_agreement: (K,) share of channels with the same label in both samples.
        draw_cosine: (K,) mean cosine of matched templates between the samples.
    """

    n_modules: Labels
    consistency: Array
    cosine: Array
    provenance: dict[str, Any]
    ari: Array | None = None
    draw_agreement: Array | None = None
    draw_cosine: Array | None = None

    SHAPES: ClassVar[Mapping[str, str]] = {
        "n_modules": "count K",
        "consistency": "float K repetitions",
        "cosine": "float K repetitions",
        "ari": "float K",
        "draw_agreement": "float K",
        "draw_cosine": "float K",
    }
    PROVENANCE: ClassVar[type[Provenance]] = ModulesProvenance

    def describe(self) -> Description:
        """Means and standard deviations over repetitions for each K, and agreement with another sample of latents."""
        about = self.provenance
        repetitions = self.consistency.shape[1]
        rows = []
        for record in self.records():
            means = ("consistency", "cosine") if repetitions else ()
            cells = [str(record["n_modules"])]
            cells += [plus_minus(record[name], record[f"{name}_std"], ".2f") for name in means]
            if self.ari is not None:
                cells += [f"{record[name]:.2f}" for name in ("ari", "draw_agreement", "draw_cosine")]
            rows.append(tuple(cells))
        head = ["K", *(("label consistency", "template cosine") if repetitions else ())]
        head += ["ARI of two samples", "same label in both", "template cosine of both"] if self.ari is not None else []
        return Description(
            "Stability",
            f"{origin(about)}: {about.get('method')} of {about.get('features')}, {counted(repetitions, 'repetition')}",
            table=Table(tuple(head), tuple(rows), "Mean ± standard deviation over subsets of the channels."),
            pictures=(Picture("Stability against the number of modules.", self.plot),),
            warning="" if self.ari is not None else _NO_OTHER,
            page="modules",
        )

    def records(self) -> Iterator[dict[str, Any]]:
        """One for each number of modules; None for what was not measured."""
        between = {"ari": self.ari, "draw_agreement": self.draw_agreement, "draw_cosine": self.draw_cosine}
        for row, k in enumerate(self.n_modules.tolist()):
            record: dict[str, Any] = {"n_modules": k}
            for name, values in (("consistency", self.consistency[row]), ("cosine", self.cosine[row])):
                record[name] = float(values.mean()) if values.size else None
                record[f"{name}_std"] = float(values.std()) if values.size else None
            yield record | {name: None if values is None else float(values[row]) for name, values in between.items()}

    def plot(self, ax: Axes | None = None) -> Plot[Axes]:
        """Label consistency against the number of modules; the ARI between samples, if that is all there is."""
        from .plots import plot_stability

        name = str(self.provenance["method"])
        if self.ari is not None and not self.consistency.size:
            return plot_stability({name: (self.n_modules, self.ari)}, quantity="ari", ax=ax)
        return plot_stability({name: (self.n_modules, self.consistency)}, quantity="consistency", ax=ax)


def measure_stability(
    rows: Floats,
    other: Floats | None,
    *,
    numbers: Sequence[int],
    repetitions: int,
    method: Method,
    seed: int,
    provenance: dict[str, Any],
) -> Stability:
    """The stability of modules of rows of features, and against ``other``, rows of another sample of latents.

    Call inside :func:`clustering.factorising`.
    """
    if not numbers or min(numbers) < 1 or repetitions < (other is None):
        raise ProbeError(
            f"n_modules is {list(numbers)} and repetitions {repetitions}; give at least one of each, from 1 up"
        )
    alive = np.flatnonzero(live_rows(rows, 1))
    smallest = smallest_subset(len(alive))
    if repetitions and max(numbers) > smallest:
        samples_only = "" if other is None else ", or for repetitions=0 to compare samples only"
        raise ProbeError(
            f"{max(numbers)} modules asked of subsets of {smallest} live channels; ask for at most {smallest}"
            f"{samples_only}"
        )
    if other is not None:
        _require_same_channels(rows, other, max(numbers))
    thirds = []
    for repetition in range(repetitions):
        rng = np.random.default_rng([seed, repetition])
        thirds.append(np.array_split(rng.permutation(alive), 3))

    def score(task: tuple[int, int]) -> tuple[float, float]:
        k, repetition = task
        a, b, c = thirds[repetition]
        cluster = partial(factorise_quickly, k=k, method=method, seed=seed)
        return _overlap(cluster, rows[np.concatenate([b, a])], rows[np.concatenate([b, c])], len(b))

    tasks = [(k, repetition) for k in numbers for repetition in range(repetitions)]
    between: tuple[Array | None, ...] = (None, None, None)
    # Small factorisations are memory-bound: running them in parallel, one thread each, is twice as fast.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        scores = np.array(list(pool.map(score, tasks))).reshape(len(numbers), repetitions, 2)
        if other is not None:
            clusterers = [partial(factorise, k=k, method=method, seed=seed) for k in numbers]
            between = _between_samples(rows, other, clusterers, pool)
    consistency, cosine = scores.transpose(2, 0, 1)
    return Stability(np.array(numbers), consistency.copy(), cosine.copy(), provenance, *between)


def numbers_of_modules(given: Any) -> list[int]:
    """One number of modules or several, as a list."""
    try:
        several = [given] if isinstance(given, str) else list(given)
    except Exception:  # one number; of anything else the next line says so
        several = [given]
    numbers = [whole(number, "n_modules", 1) for number in several]
    if not numbers:
        raise ProbeError("n_modules is []; give one number or several, such as range(2, 9)")
    return numbers


def smallest_subset(live: int) -> int:
    """The fewest channels of a union of two thirds (conventions 12): the most modules it can hold."""
    return 2 * (live // 3)


def _require_same_channels(rows: Floats, other: Floats, most: int) -> None:
    if len(other) != len(rows):
        raise ProbeError(
            f"the maps hold {len(rows)} unit sets and the other sample {len(other)}; give maps of the same ones"
        )
    if other.shape != rows.shape:
        raise ProbeError(
            f"the maps have {rows.shape[1]} pixels and those of the other sample {other.shape[1]}; "
            "give maps of one image size"
        )
    alive = int((rows.any(1) & other.any(1)).sum())
    if alive < most:
        raise ProbeError(f"{alive} channels live in both samples and {most} modules are asked for; ask for fewer")


def _overlap(cluster: Clusterer, one: Floats, two: Floats, shared: int) -> tuple[float, float]:
    """Label consistency on the first ``shared`` rows of both, and cosine of matched templates."""
    labels_one, templates_one = cluster(one)
    labels_two, templates_two = cluster(two)
    same, cosine, _ = _compare(labels_one[:shared], labels_two[:shared], templates_one, templates_two)
    return same, cosine


def _between_samples(
    rows: Floats, other: Floats, clusterers: Sequence[ExactClusterer], pool: Executor
) -> tuple[Array, ...]:
    """ARI, label agreement and template cosine of two samples, for each number of modules."""
    alive = rows.any(1) & other.any(1)

    def compare(cluster: ExactClusterer) -> tuple[float, float, float]:
        one, templates, _ = cluster(rows[alive])
        two, other_templates, _ = cluster(other[alive])
        same, cosine, ari = _compare(one, two, templates, other_templates)
        return ari, same, cosine

    return tuple(np.array(list(pool.map(compare, clusterers))).T.copy())


def _compare(one: Labels, two: Labels, templates: Floats, others: Floats) -> tuple[float, float, float]:
    """Share of equal labels after matching, mean cosine of the matched templates, and ARI."""
    order = match_labels(one, two, len(templates))
    same, ari = compare_labels(one, two, len(templates))
    cosines = cosine_matrix(templates, others)[np.arange(len(order)), order]
    return float(same.mean()), float(cosines.mean()), ari
