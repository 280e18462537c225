"""What a training gives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..generator.adapter import GeneratorAdapter
from ..registry.folders import load_folder
from .record.losses import Values


@dataclass(frozen=True, repr=False)
class Trained:
    """A folder that ``cp.load`` opens, and how the losses went.

    Attributes:
        folder: with model.safetensors, config.json, the card, grids and losses.csv.
        steps: made in all, and ``resumed_at`` of them in earlier runs.
        losses: each value by step.
        seconds: of all steps, with checkpoints and grids, over all runs.
        steps_per_second: in this run.
        notes: what was done to the data.
    """

    folder: Path
    steps: int
    resumed_at: int
    losses: dict[str, Values]
    seconds: float
    steps_per_second: float
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        last = ", ".join(f"{name} {values[-1]:.4g}" for name, values in self.losses.items())
        return f"Trained({str(self.folder)!r}, {self.steps} steps, {last})"

    def load(self) -> GeneratorAdapter:
        """The generator, as ``cp.load(folder)``."""
        return load_folder(self.folder)
