"""Which classifier is the most robust, with intervals over pairs, which are the same for all classifiers.

Ranked is the share of hybrids recognised as either original, which is a mean over pairs. S003's own measure, the larger
of the two rates of each module, is not: where they are close, the larger one is chosen by chance, its bias differs
between classifiers, and no interval around it is right.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from ..base.display.description import Description, Picture, Table
from ..base.display.plot import Plot
from ..base.display.text import counted
from ..base.errors import level, visible, whole
from ..generator.results import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROOM = 2**24  # weights of resampled pairs held at once


@dataclass(frozen=True, eq=False, repr=False)
class Ranking(Result):
    """Classifiers in order of robustness: the share of hybrids recognised as either original, averaged over modules.

    Attributes:
        classifiers: the most robust first.
        score, low, high: (classifiers,), with Student's t interval over pairs.
        first: (classifiers,), share of bootstrap resamples of the pairs in which it ranks first.
        lead, lead_low, lead_high: (classifiers,), how far the first is ahead of each, with the interval of the
            differences: a pair that is hard for all classifiers widens it for none.
        confidence: of the intervals.
    """

    classifiers: tuple[str, ...]
    score: npt.NDArray[np.float64]
    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]
    first: npt.NDArray[np.float64]
    lead: npt.NDArray[np.float64]
    lead_low: npt.NDArray[np.float64]
    lead_high: npt.NDArray[np.float64]
    confidence: float

    SHAPES: ClassVar[Mapping[str, str]] = {
        "classifiers": "list classifiers",
        "score": "float classifiers",
        "low": "float classifiers",
        "high": "float classifiers",
        "first": "float classifiers",
        "lead": "float classifiers",
        "lead_low": "float classifiers",
        "lead_high": "float classifiers",
    }

    def __post_init__(self) -> None:
        object.__setattr__(self, "classifiers", tuple(self.classifiers))  # a list, in a file

    def __str__(self) -> str:
        lines = []
        for k, name in enumerate(self.classifiers):
            behind = (
                "" if k == 0 else f", {self.lead[k]:.3f} ({self.lead_low[k]:.3f} to {self.lead_high[k]:.3f}) behind"
            )
            interval = f"{self.low[k]:.3f} to {self.high[k]:.3f}"
            lines.append(f"{k + 1}. {name}: {self.score[k]:.3f} ({interval}), first in {self.first[k]:.0%}{behind}")
        return visible("\n".join(lines))

    def describe(self) -> Description:
        """The order, with intervals and how often each classifier ranks first."""
        rows = tuple(
            (
                name,
                f"{self.score[k]:.3f}",
                f"{self.low[k]:.3f} to {self.high[k]:.3f}",
                f"{self.first[k]:.0%}",
                f"{self.lead[k]:.3f} ({self.lead_low[k]:.3f} to {self.lead_high[k]:.3f})" if k else "–",
            )
            for k, name in enumerate(self.classifiers)
        )
        unsure = len(rows) > 1 and self.lead_low[1] <= 0
        return Description(
            "Ranking",
            f"{counted(len(rows), 'classifier')}, intervals of {self.confidence:.0%}",
            table=Table(("classifier", "recognised as either", "interval", "ranks first", "behind the first"), rows),
            pictures=(Picture("Share of hybrids recognised as either original, with its interval.", self.plot),),
            warning=f"the order of {rows[0][0]} and {rows[1][0]} is not significant; score more pairs"
            if unsure
            else "",
            page="robustness",
        )

    def records(self) -> Iterator[dict[str, Any]]:
        """One for each classifier, the most robust first."""
        for k, name in enumerate(self.classifiers):
            columns = ("score", "low", "high", "first", "lead", "lead_low", "lead_high")
            yield {"classifier": name} | {column: float(getattr(self, column)[k]) for column in columns}

    def _json(self) -> dict[str, Any]:
        return dict(vars(self))

    def plot(self, ax: Axes | None = None) -> Plot[Axes]:
        """The scores with their intervals, the most robust classifier on top."""
        from .plots import plot_ranking

        return plot_ranking(self.classifiers, self.score, self.low, self.high, ax=ax)


def ranked(
    hits: npt.NDArray[np.bool_], names: Sequence[str], *, repetitions: int, confidence: float, seed: int
) -> Ranking:
    """The ranking of ``hits`` (classifier, set, pair, class)."""
    repetitions, seed = whole(repetitions, "repetitions", 1), whole(seed, "the seed", 0)
    confidence = level(confidence, "confidence")
    of_pairs = hits.any(-1).mean(1)  # (classifier, pair): a pair's hybrids by several sets are not independent
    score = of_pairs.mean(1)
    order = np.argsort(-score, kind="stable")
    low, high = np.clip(_interval(of_pairs, confidence), 0, 1)
    leads = of_pairs[order[0]] - of_pairs
    lead_low, lead_high = np.clip(_interval(leads, confidence), -1, 1)
    samples = _resampled(of_pairs, repetitions, seed)
    # Classifiers that tie in a resample share it.
    leading = samples >= samples.max(0) - 1e-12
    first = (leading / leading.sum(0)).mean(1)
    lead = score[order[0]] - score
    of_all = {"score": score, "low": low, "high": high, "first": first}
    of_all |= {"lead": lead, "lead_low": lead_low, "lead_high": lead_high}
    sorted_all: dict[str, Any] = {name: values[order] for name, values in of_all.items()}
    return Ranking(classifiers=tuple(names[k] for k in order), confidence=confidence, **sorted_all)


def _interval(values: npt.NDArray[np.float64], confidence: float) -> npt.NDArray[np.float64]:
    """(2, rows): Student's t interval of each row's mean; from −∞ to ∞ of a single value."""
    from scipy.stats import t

    n = values.shape[1]
    if n == 1:
        return np.array([[-np.inf], [np.inf]]) * np.ones(len(values))
    reach = t.ppf((1 + confidence) / 2, n - 1) * values.std(1, ddof=1) / math.sqrt(n)
    return np.asarray(values.mean(1) + np.array([[-1], [1]]) * reach)


def _resampled(of_pairs: npt.NDArray[np.float64], repetitions: int, seed: int) -> npt.NDArray[np.float64]:
    """(classifier, repetition): means over pairs resampled with replacement."""
    n, rng = of_pairs.shape[1], np.random.default_rng(seed)
    step, parts = max(1, _ROOM // n), []
    for start in range(0, repetitions, step):
        weights = rng.multinomial(n, np.full(n, 1 / n), size=min(step, repetitions - start)) / n
        parts.append(of_pairs @ weights.T)
    return np.concatenate(parts, 1)
