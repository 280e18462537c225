"""Progress of a long run in a file: written whole or not at all, and refused when damaged or of another run."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .errors import ProbeError
from .files import as_path, load_tensors, save_tensors

KIND = "Checkpoint"
SECONDS_BETWEEN = 15.0


class Checkpoint:
    """A run's file of progress. ``identity`` is all that must be equal for a run to be the same run.

    The file carries a digest of everything in it. One of an earlier version, which has none, is refused like a damaged
    one: what it holds cannot be known to be what was written.
    """

    def __init__(self, path: str | os.PathLike[str], identity: dict[str, Any]) -> None:
        self.path = as_path(path)
        self._identity: dict[str, Any] = _as_read(identity)
        self._saved = time.monotonic()

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Tensors and progress of an earlier part of this run, or None if there is no file yet."""
        if not self.path.exists():
            return None
        try:
            tensors, header = load_tensors(self.path, KIND)
        except ProbeError as error:
            if error.__cause__ is not None and not isinstance(error.__cause__, OSError):
                raise self.damaged(str(error).rpartition(";")[0]) from error
            raise
        found, progress = header.get("identity"), header.get("progress")
        if not isinstance(found, dict) or not isinstance(progress, dict):
            raise self.damaged("its header lacks the run's identity or progress")
        for key in sorted(self._identity.keys() | found.keys()):
            if found.get(key) != self._identity.get(key):
                raise ProbeError(
                    f"checkpoint {self.path} is of another run: its {key} is {_short(found.get(key))} and this run's "
                    f"{_short(self._identity.get(key))}; give another path, or delete it to start again"
                )
        if header.get("digest") != _digest(tensors, found, progress):
            raise self.damaged(
                "it has no digest, as those of earlier versions"
                if "digest" not in header
                else "its digest is not that of its content"
            )
        return tensors, progress

    def damaged(self, why: str) -> ProbeError:
        """The error for a file that is not as it was written."""
        return ProbeError(
            f"checkpoint {self.path} was damaged, edited, or written by another version ({why}); delete it to start "
            "again, or give another path"
        )

    def save(self, tensors: dict[str, Tensor], progress: dict[str, Any]) -> None:
        plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        about = _as_read(progress)
        digest = _digest(plain, self._identity, about)
        save_tensors(self.path, KIND, plain, {"identity": self._identity, "progress": about, "digest": digest})
        self._saved = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether it is time to write again: writing too often costs more than what it saves."""
        return time.monotonic() - self._saved >= SECONDS_BETWEEN


def _as_read(values: Mapping[str, Any]) -> dict[str, Any]:
    """As they will be read back: tuples become lists, and so on."""
    described: dict[str, Any] = json.loads(json.dumps(values))
    return described


def _digest(tensors: Mapping[str, Tensor], *described: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
