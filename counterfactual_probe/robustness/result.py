"""Classifiers' predictions for hybrids, pair by pair, and the rates, curves and tables computed from them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ..base.display.description import Description, Picture, Table
from ..base.display.plot import Plot
from ..base.display.text import aligned, counted, plus_minus
from ..base.errors import ProbeError
from ..base.formats.provenance import ImagesProvenance, Provenance
from ..base.formats.schema import OpenSchema
from ..base.formats.types import Name, Text
from ..generator.results import Result
from ..generator.units import UnitSet
from .arrays import ScoreArrays
from .plots import Names, module_title
from .ranking import Ranking, ranked

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = npt.NDArray[np.float64]


class ClassifierProvenance(OpenSchema):
    """What is recorded of a classifier."""

    answered: dict[Name, Text]
    pooled: dict[Name, Text] | list[Text]


class RobustnessProvenance(ImagesProvenance, kw_only=True):
    """What an assessment records."""

    classifiers: list[ClassifierProvenance]


@dataclass(frozen=True, eq=False, repr=False)
class Robustness(Result, ScoreArrays):
    """Classifiers' predictions for hybrids of two classes; NaN in every array where a layer has no such module.

    >>> result.recognition.shape, result.entropy.shape  # doctest: +SKIP
    ((3, 5, 3, 2), (3, 5, 3))
    >>> print(result)  # a table; result.to_csv("table.csv") writes it  # doctest: +SKIP

    Attributes:
        answers: (classifier, layer, module, pair), the top-1 class; −1 where there is no such module.
        confidence: its probability.
        hits: (classifier, layer, module, pair, class), whether the top-1 class is one that counts as base's, source's.
        hits5: the same for the top-5 classes.
        probabilities: total probability of the classes that count.
        entropies: (classifier, layer, module, pair) in nats, over the classes pooled for each classifier, renormalised.
        distances: (layer, module, pair, class), mean |hybrid − original|, to the base and to the source.
        original_hits: (classifier, pair, class), whether base and source themselves are recognised.
        disagreement: (layer, module, pair), Jensen–Shannon divergence in nats of the classifiers' distributions over
            base's class, source's, and neither.
        shown: (k, 3, C, H, W), base, hybrid and source of the hybrids of largest disagreement, one of a pair at most.
        shown_at: (k, 3), their layer, module and pair, as numbers.
        classifiers, layers, modules, classes: names, in the order of the arrays.
        units: the unit sets, by layer and then by module.
        provenance: generator, classifiers with their preprocessing, weights and maps of classes, versions.
    """

    shown: Tensor
    shown_at: npt.NDArray[np.int64]
    classifiers: tuple[str, ...]
    layers: tuple[str, ...]
    modules: tuple[str, ...]
    classes: tuple[str, ...]
    units: tuple[UnitSet, ...]
    provenance: dict[str, Any]

    SHAPES: ClassVar[Mapping[str, str]] = {
        "classifiers": "list classifiers",
        "layers": "list layers",
        "modules": "list modules",
        "classes": "list 2",
        "answers": "int classifiers layers modules pairs",
        "confidence": "float classifiers layers modules pairs",
        "hits": "bool classifiers layers modules pairs 2",
        "hits5": "bool classifiers layers modules pairs 2",
        "probabilities": "float classifiers layers modules pairs 2",
        "entropies": "float classifiers layers modules pairs",
        "distances": "float layers modules pairs 2",
        "original_hits": "bool classifiers pairs 2",
        "disagreement": "float layers modules pairs",
        "shown": "float shown 3 3 H W",
        "shown_at": "count shown 3",
    }
    PROVENANCE: ClassVar[type[Provenance]] = RobustnessProvenance

    def _contradiction(self) -> str | None:
        described = self.provenance["classifiers"]
        if len(described) != len(self.classifiers):
            return f"its provenance has {len(described)} classifiers and the result {len(self.classifiers)}"
        if len(self.shown_at) and (self.shown_at.max(axis=0) >= self.disagreement.shape).any():
            return f"shown_at names {self.shown_at.max(axis=0).tolist()} and the hybrids are {self.disagreement.shape}"
        return super()._contradiction()

    def __post_init__(self) -> None:
        for name in Names._fields:  # JSON has lists
            object.__setattr__(self, name, tuple(getattr(self, name)))
        expected = (len(self.classifiers), len(self.layers), len(self.modules))
        if self.answers.shape[:3] != expected:
            raise ValueError(f"answers are {self.answers.shape} for {expected} classifiers, layers and modules")

    def __str__(self) -> str:
        """The whole table, a row for each classifier, layer and module."""
        records = list(self.records())
        rows = [list(records[0]), *([_cell(value) for value in row.values()] for row in records)]
        return "\n".join([self.describe().title, *(f"  {line}" for line in aligned(rows))])

    def describe(self) -> Description:
        """How often hybrids are recognised as one of their originals, by classifier and layer (S003 Fig. 6)."""
        classifiers, layers, modules, n = self.answers.shape
        curve, error = self.curve, self.curve_standard_error
        rows = tuple(
            (name, *(plus_minus(curve[c, j], error[c, j], ".2f") for j in range(layers)))
            for c, name in enumerate(self.classifiers)
        )
        pictures = [
            Picture("Recognition of hybrids, and their distance from both originals; ± one standard error.", self.plot)
        ]
        if len(self.shown):
            pictures.append(Picture("The hybrids on which classifiers disagree most.", self.plot_disagreements))
        return Description(
            "Robustness",
            f"{counted(classifiers, 'classifier')}, {counted(layers, 'layer')}, {counted(modules, 'module')}, "
            f"{counted(n, 'pair')}; "
            f"{self.provenance.get('generator')}, {self.classes[0]} and {self.classes[1]}",
            table=Table(
                ("recognition", *self.layers),
                rows,
                f"Share of hybrids recognised as {self.classes[0]} or {self.classes[1]}, whichever is larger, averaged "
                "over modules.",
            ),
            pictures=tuple(pictures),
            warning="a single pair gives no standard error; score more pairs" if n == 1 else "",
            page="robustness",
        )

    # --- numbers ----------------------------------------------------------------------------------

    @property
    def n_pairs(self) -> int:
        return int(self.answers.shape[3])

    @property
    def present(self) -> npt.NDArray[np.bool_]:
        """(layer, module), whether the layer has this module."""
        present: npt.NDArray[np.bool_] = self.answers[0, :, :, 0] >= 0
        return present

    @property
    def recognition(self) -> Floats:
        """(classifier, layer, module, class), share of hybrids whose top-1 class is base's, or source's."""
        return self._rates(self.hits)

    @property
    def recognition5(self) -> Floats:
        """The same for the top-5 classes."""
        return self._rates(self.hits5)

    @property
    def best(self) -> Floats:
        """(classifier, layer, module), the larger of both rates: how often hybrids are recognised as one original."""
        larger: Floats = self.recognition.max(-1)
        return larger

    @property
    def best_standard_error(self) -> Floats:
        """(classifier, layer, module) of ``best``; NaN with a single pair."""
        return _standard_error(self._best_hits())

    @property
    def curve(self) -> Floats:
        """(classifier, layer), ``best`` averaged over modules (S003 Fig. 6)."""
        return _mean(self.best, -1)

    @property
    def curve_standard_error(self) -> Floats:
        """(classifier, layer), over pairs: a pair's hybrids by several modules are not independent."""
        return _standard_error(_mean(self._best_hits(), 2))

    @property
    def distance(self) -> Floats:
        """(classifier, layer, module, class), mean |hybrid − original|; the same for each classifier."""
        mean = self.distances.mean(2, dtype=np.float64)
        return np.broadcast_to(mean, (len(self.classifiers), *mean.shape)).copy()

    @property
    def distance_standard_error(self) -> Floats:
        """(layer, module, class)."""
        return _standard_error(np.moveaxis(self.distances, 2, -1).astype(np.float64))

    @property
    def entropy(self) -> Floats:
        """(classifier, layer, module), mean over pairs, in nats."""
        means: Floats = self.entropies.mean(3, dtype=np.float64)
        return means

    @property
    def verdicts(self) -> npt.NDArray[np.int8]:
        """(classifier, layer, module, pair), 0 for base's class, 1 for source's, −1 for any other."""
        verdicts = np.where(self.hits[..., 0], 0, np.where(self.hits[..., 1], 1, -1))
        return verdicts.astype(np.int8)

    @property
    def consensus(self) -> Floats:
        """(layer, module), share of hybrids on which all classifiers agree: base's class, source's, or other."""
        same = (self.verdicts == self.verdicts[:1]).all(0).mean(-1)
        return np.where(self.present, same, np.nan)

    @property
    def agreement(self) -> Floats:
        """(classifier, classifier), share of all hybrids on which two agree."""
        flat = self.verdicts[:, self.present].reshape(len(self.classifiers), -1)
        shares: Floats = (flat[:, None] == flat[None]).mean(-1)
        return shares

    @property
    def original_recognition(self) -> Floats:
        """(classifier, class), share of bases recognised as base's class and of sources recognised as source's."""
        shares: Floats = self.original_hits.mean(1)
        return shares

    def ranking(self, *, repetitions: int = 2000, confidence: float = 0.95, seed: int = 0) -> Ranking:
        """Classifiers by how often they recognise hybrids as either original, with intervals over pairs.

        >>> print(result.ranking())  # doctest: +SKIP
        """
        hits = self.hits[:, self.present]
        return ranked(hits, self.classifiers, repetitions=repetitions, confidence=confidence, seed=seed)

    def disagreements(self) -> list[dict[str, Any]]:
        """The hybrids of ``shown``: layer, module, pair, disagreement, and each classifier's answer with its
        probability (S003 Table 3)."""
        listed = []
        for layer, module, pair in self.shown_at.tolist():
            answers = {
                name: (
                    self.answer(c, int(self.answers[c, layer, module, pair])),
                    float(self.confidence[c, layer, module, pair]),
                )
                for c, name in enumerate(self.classifiers)
            }
            listed.append(
                {
                    "layer": self.layers[layer],
                    "module": self.modules[module],
                    "pair": pair,
                    "disagreement": float(self.disagreement[layer, module, pair]),
                    "answers": answers,
                }
            )
        return listed

    def answer(self, classifier: int, number: int) -> str:
        """The classifier's name of one of its answers."""
        names: dict[str, str] = self.provenance["classifiers"][classifier]["answered"]
        return names.get(str(number), f"class {number}")

    # --- tables and figures -----------------------------------------------------------------------

    def records(self) -> Iterator[dict[str, Any]]:
        """One for each classifier, layer and module, with all measures as plain numbers."""
        first, second = self.classes
        top1, top5, best, error = self.recognition, self.recognition5, self.best, self.best_standard_error
        distance, entropy, consensus = self.distance, self.entropy, self.consensus
        present = np.argwhere(self.present).tolist()
        for c, classifier in enumerate(self.classifiers):
            for layer, module in present:
                at = c, layer, module
                yield {
                    "classifier": classifier,
                    "layer": self.layers[layer],
                    "module": self.modules[module],
                    f"{first} top-1": float(top1[at][0]),
                    f"{second} top-1": float(top1[at][1]),
                    f"{first} top-5": float(top5[at][0]),
                    f"{second} top-5": float(top5[at][1]),
                    "larger": float(best[at]),
                    "standard error": float(error[at]),
                    f"distance to {first}": float(distance[at][0]),
                    f"distance to {second}": float(distance[at][1]),
                    "entropy": float(entropy[at]),
                    "consensus": float(consensus[layer, module]),
                }

    def rows(self) -> Iterator[dict[str, Any]]:
        """The same as ``records``."""
        return self.records()

    def _json(self) -> dict[str, Any]:
        return super()._json() | {"ranking": self.ranking().to_json()}

    @property
    def _names(self) -> Names:
        """Names along the dimensions of the arrays."""
        return Names(self.classifiers, self.layers, self.modules, self.classes)

    def plot(self, ax: Axes | None = None, *, quantity: Literal["recognition", "distance"] | None = None) -> Plot[Any]:
        """Recognition by layer and classifier with standard errors, and pixel distance beside it (S003 Fig. 6).

        Onto given axes goes one of them, by default recognition.
        """
        from .plots import plot_distance, plot_recognition, plot_recognition_and_distance

        if quantity not in (None, "recognition", "distance"):
            raise ProbeError(f"quantity is {quantity!r}; give 'recognition' or 'distance'")
        if quantity == "distance":
            return plot_distance(self.distances, self._names, ax=ax)
        curve, error = self.curve, self.curve_standard_error
        if ax is None and quantity is None:
            return plot_recognition_and_distance(curve, error, self.distances, self._names)
        return plot_recognition(curve, error, self._names, ax=ax)

    def plot_entropy(self, classifier: str) -> Plot[npt.NDArray[np.object_]]:
        """Histograms of entropy, a row for each module and a column for each layer (S003 Fig. 14 and 16)."""
        from .plots import plot_entropies

        number = self.number(classifier)
        pooled = len(self.provenance["classifiers"][number]["pooled"])
        return plot_entropies(self.entropies[number], self._names, classifier, pooled)

    def plot_disagreements(self, ax: Axes | None = None) -> Plot[Axes]:
        """The hybrids that classifiers disagree about most, with their answers (S003 Fig. 17 and Table 3)."""
        from .plots import plot_disagreements

        words = []
        for item in self.disagreements():
            where = f"{item['layer']}, {module_title(item['module'])}, pair {item['pair']}"
            said = [f"{name}: {answer} ({share:.2f})" for name, (answer, share) in item["answers"].items()]
            words.append([where, *said])
        low, high = self.provenance["image_range"]
        return plot_disagreements(self.shown.numpy(), words, self.classes, (low, high), ax=ax)

    def number(self, classifier: str) -> int:
        """The index of a classifier in the arrays."""
        if classifier not in self.classifiers:
            raise ProbeError(f"no classifier is named {classifier!r} here; give one of {', '.join(self.classifiers)}")
        return self.classifiers.index(classifier)

    # --- inside -----------------------------------------------------------------------------------

    def _rates(self, hits: npt.NDArray[np.bool_]) -> Floats:
        return np.where(self.present[None, :, :, None], hits.mean(3), np.nan)

    def _best_hits(self) -> Floats:
        """(classifier, layer, module, pair), whether the hybrid is recognised as the more frequent of both classes."""
        which = np.nan_to_num(self.recognition).argmax(-1)[..., None, None]
        hits = np.take_along_axis(self.hits, which, axis=-1)[..., 0].astype(np.float64)
        return np.where(self.present[None, :, :, None], hits, np.nan)


def _mean(values: Floats, axis: int) -> Floats:
    """Mean without NaN."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of nothing at all it is NaN
        mean: Floats = np.nanmean(values, axis)
    return mean


def _standard_error(values: Floats) -> Floats:
    """Standard error of the mean over the last dimension."""
    n = values.shape[-1]
    if n == 1:
        return np.full(values.shape[:-1], np.nan)
    error: Floats = values.std(-1, ddof=1) / np.sqrt(n)
    return error


def _cell(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
