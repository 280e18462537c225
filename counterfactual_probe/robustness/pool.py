"""The classes that entropy is taken over, and the logits for it: kept on disk, since memory has no room for them."""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..base.errors import ProbeError, first_line

POOLED = 10
_ROWS = 1024


class LogitPool:
    """Logits of one classifier, added as hybrids are scored, and in the end the hybrids' entropies.

    The ten classes of largest mean probability over all hybrids (conventions 24) are known only after the last one.
    """

    def __init__(self, n_classes: int) -> None:
        self.n_classes = n_classes
        self.probability_sums = np.zeros(n_classes)
        self.rows = 0
        self._places: list[npt.NDArray[np.int32]] = []
        self._file: Any = tempfile.TemporaryFile()  # noqa: SIM115  # it lives as long as the pool

    def add(self, logits: Tensor, places: npt.NDArray[np.int32]) -> None:
        """Logits (rows, classes) float32 on the CPU, and where each row's entropy goes in a flat array."""
        self.probability_sums += logits.double().softmax(1).sum(0).numpy()
        self.rows += len(logits)
        self._places.append(places)
        try:
            self._file.write(logits.contiguous().numpy().data)
        except OSError as error:
            raise ProbeError(
                f"logits cannot be kept in a temporary file ({first_line(error)}); make room in {tempfile.gettempdir()}"
            ) from error

    def classes(self) -> list[int]:
        """The classes of largest mean probability over all hybrids, in falling order."""
        order = np.argsort(-self.probability_sums, kind="stable")
        return [int(number) for number in order[: min(POOLED, self.n_classes)]]

    def entropies(self, out: npt.NDArray[np.float32]) -> list[int]:
        """Write each row's entropy, in nats, to its place in ``out``; returns the classes that it is over."""
        chosen = self.classes()
        places = np.concatenate(self._places)
        self._file.seek(0)
        for start in range(0, self.rows, _ROWS):
            count = min(_ROWS, self.rows - start)
            raw = self._file.read(4 * self.n_classes * count)
            logits = torch.from_numpy(np.frombuffer(raw, np.float32).reshape(count, -1)[:, chosen].copy())
            out.ravel()[places[start : start + count]] = entropy(logits).numpy()
        return chosen

    def close(self) -> None:
        self._file.close()


def entropy(logits: Tensor) -> Tensor:
    """Entropy in nats over the given classes, renormalised; from logits, so that no probability underflows to 0."""
    logs = logits.double().log_softmax(1)
    in_nats: Tensor = torch.special.entr(logs.exp()).sum(1).float()
    return in_nats
