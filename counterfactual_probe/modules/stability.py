"""How reproducible modules are: between subsets of channels, and between samples of latents."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np

from ..base.display.description import Description, Picture, Table
from ..base.display.plot import Plot
from ..base.display.text import counted, plus_minus
from ..base.errors import ProbeError, whole
from ..base.formats.provenance import Provenance
from ..generator.results import Result, kind_of, origin
from .clustering import (
    Array,
    Floats,
    Labels,
    Method,
    ModulesProvenance,
    compare_labels,
    cosine_matrix,
    factorise_all,
    factorise_quickly,
    live_rows,
    match_labels,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Clusters: TypeAlias = Sequence[tuple[Labels, Floats]]  # labels and templates, for each number of modules

_NO_OTHER = "subsets of the {}s say nothing about other latents; give other=, the maps of another sample of latents"


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
        draw_cosine: (K,) mean cosine of matched templates between the samples; NaN where each has principal components
            of its own.
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
        about, kind = self.provenance, kind_of(self.provenance)
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
            table=Table(tuple(head), tuple(rows), f"Mean ± standard deviation over subsets of the {kind}s."),
            pictures=(Picture("Stability against the number of modules.", self.plot),),
            warning="" if self.ari is not None else _NO_OTHER.format(kind),
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
        return plot_stability(
            {name: (self.n_modules, self.consistency)}, quantity="consistency", kind=kind_of(self.provenance), ax=ax
        )


def measure_stability(
    rows: Floats,
    other: Floats | None,
    *,
    comparable: bool = True,
    numbers: Sequence[int],
    repetitions: int,
    method: Method,
    seed: int,
    provenance: dict[str, Any],
) -> Stability:
    """The stability of modules of rows of features, and against ``other``, rows of another sample of latents: with
    ``comparable``, features that mean the same, so that templates may be compared as well.

    Call inside :func:`clustering.factorising`.
    """
    if not numbers or min(numbers) < 1 or repetitions < (other is None):
        raise ProbeError(
            f"n_modules is {list(numbers)} and repetitions {repetitions}; give at least one of each, from 1 up"
        )
    kind = kind_of(provenance)
    alive = np.flatnonzero(live_rows(rows, 1, kind))
    smallest = smallest_subset(len(alive))
    if repetitions and max(numbers) > smallest:
        samples_only = "" if other is None else ", or for repetitions=0 to compare samples only"
        raise ProbeError(
            f"{counted(max(numbers), 'module')} asked of subsets of {counted(smallest, f'live {kind}')}; ask for at "
            f"most {smallest}{samples_only}"
        )
    if other is not None:
        _require_same_units(rows, other, max(numbers), kind, comparable=comparable)
    thirds = []
    for repetition in range(repetitions):
        rng = np.random.default_rng([seed, repetition])
        thirds.append(np.array_split(rng.permutation(alive), 3))

    # Small factorisations are memory-bound: running them in parallel, one thread each, is twice as fast.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        cluster = partial(factorise_quickly, numbers=numbers, method=method, seed=seed)
        halves = [rows[np.concatenate([b, other])] for a, b, c in thirds for other in (a, c)]
        clustered = list(pool.map(cluster, halves))
        scores = np.empty((len(numbers), repetitions, 2))
        for repetition, (_, b, _) in enumerate(thirds):
            one, two = clustered[2 * repetition : 2 * repetition + 2]
            scores[:, repetition] = _overlaps(one, two, len(b))
        between: tuple[Array | None, ...] = (None, None, None)
        if other is not None:
            between = _between_samples(
                rows, other, comparable=comparable, numbers=numbers, method=method, seed=seed, pool=pool
            )
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


def _require_same_units(rows: Floats, other: Floats, most: int, kind: str, *, comparable: bool) -> None:
    if len(other) != len(rows):
        raise ProbeError(
            f"the maps hold {len(rows)} unit sets and the other sample {len(other)}; give maps of the same ones"
        )
    if comparable and other.shape != rows.shape:
        raise ProbeError(
            f"the maps have {rows.shape[1]} pixels and those of the other sample {other.shape[1]}; "
            "give maps of one image size"
        )
    alive = int((rows.any(1) & other.any(1)).sum())
    if alive < most:
        raise ProbeError(
            f"{counted(alive, kind)} live in both samples and {counted(most, 'module')} asked for; ask for fewer"
        )


def _overlaps(one: Clusters, two: Clusters, shared: int) -> list[tuple[float, float]]:
    """Label consistency on the first ``shared`` rows of both, and cosine of matched templates, for each number."""
    return [
        _compare(labels[:shared], others[:shared], templates, other_templates)[:2]
        for (labels, templates), (others, other_templates) in zip(one, two, strict=True)
    ]


def _between_samples(
    rows: Floats,
    other: Floats,
    *,
    comparable: bool,
    numbers: Sequence[int],
    method: Method,
    seed: int,
    pool: Executor,
) -> tuple[Array, ...]:
    """ARI, label agreement and, of comparable features, template cosine of two samples, for each number of modules."""
    alive = rows.any(1) & other.any(1)
    # As ModuleFinder.fit clusters, so that an index computed from two fits is the one reported here.
    together = [list(numbers)] if method == "nmf" else [[k] for k in numbers]
    cluster = partial(factorise_all, method=method, seed=seed)
    found = list(
        chain(*pool.map(cluster, [rows[alive]] * len(together) + [other[alive]] * len(together), 2 * together))
    )
    samples = zip(found[: len(numbers)], found[len(numbers) :], strict=True)
    compared = [_compare(labels, others, a, b if comparable else None) for (labels, a), (others, b) in samples]
    return tuple(np.array([(ari, same, cosine) for same, cosine, ari in compared]).T.copy())


def _compare(one: Labels, two: Labels, templates: Floats, others: Floats | None) -> tuple[float, float, float]:
    """Share of equal labels after matching, mean cosine of the matched templates (NaN without others), and ARI."""
    same, ari = compare_labels(one, two, len(templates))
    if others is None:
        return float(same.mean()), float("nan"), ari
    order = match_labels(one, two, len(templates))
    cosines = cosine_matrix(templates, others)[np.arange(len(order)), order]
    return float(same.mean()), float(cosines.mean()), ari
