"""Scores of every classifier for every hybrid, written into arrays as the hybrids are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..base.errors import ProbeError
from ..base.memory import in_slices
from ..classifiers import Classifier
from ..classifiers.classifier import ONE_IMAGE
from ..generator.images import all_finite
from .arrays import ScoreArrays
from .grid import ClassNumbers, ModuleGrid
from .pool import LogitPool

BATCH = 32


@dataclass(frozen=True)
class Row:
    """An image to be scored: a hybrid of a set, or (without a set) the base or the source of a pair."""

    image: Tensor
    pair: int
    chosen: int | None  # which of the grid's unit sets
    base: Tensor
    source: Tensor

    def label(self, grid: ModuleGrid) -> str:
        """What errors call the image."""
        if self.chosen is None:
            return f"the {'base' if self.image is self.base else 'source'} of pair {self.pair}"
        layer, module = grid.places[self.chosen]
        return f"the hybrid of pair {self.pair} by module {grid.modules[module]!r} of {grid.layers[layer]!r}"


@dataclass
class DisagreementSample:
    """The ``size`` hybrids that classifiers disagree about most, one of each pair at most, with base and source."""

    size: int
    kept: dict[int, tuple[float, int, Tensor]] = field(default_factory=dict)  # by pair: (disagreement, set, images)

    def offer(self, row: Row, disagreement: float) -> None:
        """Keep the hybrid if it is among the largest disagreements so far."""
        if self.size < 1 or row.chosen is None:
            return
        known = self.kept.get(row.pair)
        if known is not None:
            if disagreement > known[0]:
                self._keep(row, disagreement)
        elif len(self.kept) < self.size:
            self._keep(row, disagreement)
        else:
            least = min(self.kept, key=lambda pair: (self.kept[pair][0], -pair))
            if disagreement > self.kept[least][0]:
                del self.kept[least]
                self._keep(row, disagreement)

    def in_order(self) -> list[tuple[int, int, Tensor]]:
        """(pair, set, images (3, C, H, W)), the largest disagreement first."""
        pairs = sorted(self.kept, key=lambda pair: (-self.kept[pair][0], pair))
        return [(pair, self.kept[pair][1], self.kept[pair][2]) for pair in pairs]

    def _keep(self, row: Row, disagreement: float) -> None:
        images = torch.stack([row.base, row.image, row.source]).float().cpu()
        self.kept[row.pair] = disagreement, row.chosen or 0, images


class Tally:
    """Scores rows in batches and writes the scores into arrays. Used inside the classifiers' sessions."""

    def __init__(
        self,
        classifiers: Sequence[Classifier],
        numbers: Sequence[ClassNumbers],
        grid: ModuleGrid,
        n_pairs: int,
        *,
        image_range: tuple[float, float],
        shown: int,
    ) -> None:
        self.classifiers, self.numbers, self.grid, self.image_range = classifiers, numbers, grid, image_range
        self.arrays = ScoreArrays.empty(len(classifiers), len(grid.layers), len(grid.modules), n_pairs)
        self.pools = [LogitPool(classifier.n_classes) for classifier in classifiers]
        self.sample = DisagreementSample(shown)
        self._rows: list[Row] = []
        self._fitting = BATCH  # rows at a time that memory has room for

    def add(self, row: Row) -> None:
        self._rows.append(row)
        if len(self._rows) == BATCH:
            self.flush()

    def flush(self) -> None:
        """Score the rows that are waiting."""
        rows, self._rows = self._rows, []
        if not rows:
            return
        hybrids = [place for place, row in enumerate(rows) if row.chosen is not None]
        parts = list(in_slices(len(rows), self._fitting, lambda index: self._logits(rows[index]), ONE_IMAGE))
        self._fitting = max(len(part[0]) for part in parts[-2:]) if len(parts) > 1 else self._fitting
        by_classifier = [torch.cat(logits) for logits in zip(*parts, strict=True)]
        masses = [self._score(c, rows, logits, hybrids) for c, logits in enumerate(by_classifier)]
        if hybrids:
            self._compare(rows, hybrids, torch.stack(masses))

    def finish(self) -> list[list[int]]:
        """Score what waits and write all entropies; returns the classes pooled for each classifier."""
        self.flush()
        return [pool.entropies(self.arrays.entropies[c]) for c, pool in enumerate(self.pools)]

    def close(self) -> None:
        for pool in self.pools:
            pool.close()

    def _logits(self, rows: Sequence[Row]) -> list[Tensor]:
        """(rows, classes) of each classifier, on the CPU; preprocessing that several share is done once."""
        images = torch.stack([row.image for row in rows])
        shared: dict[Any, Tensor] = {}
        by_classifier = []
        for classifier in self.classifiers:
            home = classifier.device, classifier.dtype
            if home not in shared:
                shared[home] = classifier.unit(images, self.image_range)
            logits = classifier.forward(classifier.transformed(shared[home], shared)).cpu()
            if logits.shape[1] != classifier.n_classes:
                raise ProbeError(
                    f"classifier {classifier.name!r} gives {logits.shape[1]} logits and gave {classifier.n_classes} "
                    "before; let its module always return as many"
                )
            if not all_finite(logits):
                bad = int((~torch.isfinite(logits)).any(1).nonzero()[0, 0])
                raise ProbeError(
                    f"classifier {classifier.name!r} gives NaN or infinite logits for {rows[bad].label(self.grid)}; "
                    "check its weights and its preprocessing"
                )
            by_classifier.append(logits)
        return by_classifier

    def _score(self, c: int, rows: Sequence[Row], logits: Tensor, hybrids: Sequence[int]) -> Tensor:
        """Write one classifier's scores; returns the hybrids' probabilities of both classes, (hybrids, 2)."""
        arrays = self.arrays
        probabilities = logits.softmax(1)
        top = logits.topk(min(5, logits.shape[1])).indices
        counted = torch.zeros(2, logits.shape[1], dtype=torch.bool)
        for side, numbers in enumerate(self.numbers[c]):
            counted[side, list(numbers)] = True
        among = counted[:, top]  # (2, rows, 5)
        first, any5, mass = among[:, :, 0].T.numpy(), among.any(2).T.numpy(), probabilities @ counted.float().T
        for place, row in enumerate(rows):
            if row.chosen is None:
                side = 0 if row.image is row.base else 1
                arrays.original_hits[c, row.pair, side] = first[place, side]
        if not hybrids:
            return mass[:0]
        these = list(hybrids)
        at: Any = (c, *self._at(rows, these))
        arrays.answers[at] = top[these, 0].numpy()
        arrays.confidence[at] = probabilities[these].amax(1).numpy()
        arrays.hits[at], arrays.hits5[at], arrays.probabilities[at] = first[these], any5[these], mass[these].numpy()
        places = np.ravel_multi_index(at[1:], arrays.disagreement.shape)
        self.pools[c].add(logits[these], places.astype(np.int32))
        return mass[these]

    def _at(self, rows: Sequence[Row], hybrids: Sequence[int]) -> tuple[npt.NDArray[np.int64], ...]:
        """(layers, modules, pairs) of these rows, as indices of the arrays."""
        places = [(*self.grid.places[rows[k].chosen or 0], rows[k].pair) for k in hybrids]
        return tuple(np.array(places, np.int64).T)

    def _compare(self, rows: Sequence[Row], hybrids: Sequence[int], masses: Tensor) -> None:
        """How far the classifiers disagree about each hybrid."""
        disagreement = jensen_shannon(masses).float().numpy()
        self.arrays.disagreement[self._at(rows, hybrids)] = disagreement
        for place, value in zip(hybrids, disagreement.tolist(), strict=True):
            self.sample.offer(rows[place], value)


def jensen_shannon(masses: Tensor) -> Tensor:
    """Jensen–Shannon divergence, in nats, of the classifiers' distributions over base's class, source's, and neither.

    ``masses`` (classifiers, hybrids, 2) are the probabilities of the two, so classifiers of different classes can be
    compared.
    """
    masses = masses.double().clamp(0, 1)
    outcomes = torch.cat([masses, (1 - masses.sum(2, keepdim=True)).clamp(0, 1)], 2)
    outcomes = outcomes / outcomes.sum(2, keepdim=True)
    mean, alone = torch.special.entr(outcomes.mean(0)).sum(1), torch.special.entr(outcomes).sum(2).mean(0)
    divergence: Tensor = (mean - alone).clamp_min(0)
    return divergence
