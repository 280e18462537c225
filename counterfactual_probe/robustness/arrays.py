"""The arrays of a robustness assessment: named here once, for the tally that fills them and for the result."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class ScoreArrays:
    """By classifier, layer, module and pair; :class:`Robustness` says what each holds."""

    answers: npt.NDArray[np.int32]
    confidence: npt.NDArray[np.float32]
    hits: npt.NDArray[np.bool_]
    hits5: npt.NDArray[np.bool_]
    probabilities: npt.NDArray[np.float32]
    entropies: npt.NDArray[np.float32]
    distances: npt.NDArray[np.float32]
    original_hits: npt.NDArray[np.bool_]
    disagreement: npt.NDArray[np.float32]

    @classmethod
    def empty(cls, classifiers: int, layers: int, modules: int, pairs: int) -> ScoreArrays:
        """Before the first hybrid: −1, NaN and False, which stay where a layer has no such module."""
        shape = classifiers, layers, modules, pairs

        def unknown(*size: int) -> npt.NDArray[np.float32]:
            return np.full(size, np.nan, np.float32)

        return cls(
            answers=np.full(shape, -1, np.int32),
            confidence=unknown(*shape),
            hits=np.zeros((*shape, 2), np.bool_),
            hits5=np.zeros((*shape, 2), np.bool_),
            probabilities=unknown(*shape, 2),
            entropies=unknown(*shape),
            distances=unknown(*shape[1:], 2),
            original_hits=np.zeros((classifiers, pairs, 2), np.bool_),
            disagreement=unknown(*shape[1:]),
        )
