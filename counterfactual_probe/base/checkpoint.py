"""Progress of a long run in a file: written whole or not at all, and refused when it is another run's."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from torch import Tensor

from .errors import ProbeError
from .files import as_path, load_tensors, save_tensors

KIND = "Checkpoint"
SECONDS_BETWEEN = 15.0


class Checkpoint:
    """A run's file of progress. ``identity`` is all that must be equal for a run to be the same run."""

    def __init__(self, path: str | os.PathLike[str], identity: dict[str, Any]) -> None:
        self.path = as_path(path)
        # As it will be read back: tuples become lists, and so on.
        self._identity: dict[str, Any] = json.loads(json.dumps(identity))
        self._saved = time.monotonic()

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Tensors and progress of an earlier part of this run, or None if there is no file yet."""
        if not self.path.exists():
            return None
        tensors, header = load_tensors(self.path, KIND)
        found = header.get("identity", {})
        for key in sorted(self._identity.keys() | found.keys()):
            if found.get(key) != self._identity.get(key):
                raise ProbeError(
                    f"checkpoint {self.path} is of another run: its {key} is {_short(found.get(key))} and this run's "
                    f"{_short(self._identity.get(key))}; give another path, or delete it to start again"
                )
        return tensors, header["progress"]

    def save(self, tensors: dict[str, Tensor], progress: dict[str, Any]) -> None:
        save_tensors(self.path, KIND, tensors, {"identity": self._identity, "progress": progress})
        self._saved = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether it is time to write again: writing too often costs more than what it saves."""
        return time.monotonic() - self._saved >= SECONDS_BETWEEN


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
