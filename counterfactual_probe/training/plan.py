"""A training with everything settled: the same plan gives the same losses."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from ..base.errors import ProbeError
from ..data import Images
from .recipe import Precision, Recipe

_MOST_GRIDS = 50


@dataclass(frozen=True)
class Start:
    """Weights that the networks begin with: a trained model's tensors, by file."""

    name: str
    files: Mapping[str, Mapping[str, Tensor]]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all tensors, as stored."""
        sha = hashlib.sha256()
        for file in sorted(self.files):
            sha.update(file.encode() + safetensors.torch.save(dict(self.files[file])))
        return sha.hexdigest()


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """A recipe, its data, and for how long."""

    name: str
    summary: str
    recipe: Recipe
    images: Images
    out: Path
    steps: int
    seed: int
    precision: Precision
    device: str | None
    command: str  # that repeats it, or a call
    start: Start | None = None

    @property
    def epoch_steps(self) -> int:
        return len(self.images) // self.recipe.batch

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What must be equal for a run to resume from a checkpoint."""
        # Without the number of steps: a run may be made longer.
        return {
            "model": self.name,
            **self.recipe.settings(),
            "seed": self.seed,
            "precision": self.precision,
            "images": len(self.images),
            "image size": list(self.images.size),
            "data": self.images.fingerprint(),
            **({"start": self.start.digest} if self.start else {}),
        }

    def grids_due(self, done: int) -> bool:
        """Whether grids are drawn after so many steps: after each epoch (every few, if there are many) and at the
        end."""
        if done == self.steps:
            return True
        every = max(1, -(-self.steps // (self.epoch_steps * _MOST_GRIDS)))
        return done % (self.epoch_steps * every) == 0

    def check(self) -> None:
        """Raise a ProbeError if these images cannot be trained on by this recipe."""
        n, batch = len(self.images), self.recipe.batch
        if n < batch:
            raise ProbeError(
                f"{n} images are fewer than a batch of {batch}; give more images, or a batch of at most {n}"
            )
        _, height, width = self.images.size
        if height != width:
            raise ProbeError(f"the images are {height}×{width}; give size=, or --size, to make squares of them")
