"""What a training gives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.display.described import Described, Tabulated
from ..base.display.description import Description, Picture
from ..base.display.plot import Plot
from ..base.display.text import counted
from ..generator.adapter import GeneratorAdapter
from ..registry.folders import load_folder
from .record.losses import Values

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, repr=False)
class Trained(Described, Tabulated):
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

    def describe(self) -> Description:
        """The last losses, and how they came there."""
        last = ", ".join(f"{name} {values[-1]:.4g}" for name, values in self.losses.items())
        resumed = f", {self.resumed_at:,} of them in earlier runs" if self.resumed_at else ""
        facts = [("time", f"{self.seconds:,.0f} s, {self.steps_per_second:.3g} steps a second{resumed}")]
        facts += [("data", note) for note in self.notes]
        return Description(
            "Trained",
            f"{str(self.folder)!r}, {counted(self.steps, 'step')}, {last}",
            facts=tuple(facts),
            pictures=(Picture("Losses by step.", self.plot),),
            page="training",
        )

    def records(self) -> Iterator[dict[str, Any]]:
        """One for each step, with every loss."""
        for step in range(self.steps):
            yield {"step": step + 1} | {name: float(values[step]) for name, values in self.losses.items()}

    def _json(self) -> dict[str, Any]:
        return {"rows": list(self.records()), "folder": str(self.folder), "notes": self.notes}

    def plot(self, ax: Axes | None = None) -> Plot[Axes]:
        """Each loss by step."""
        from .record.losses import plot_losses

        return plot_losses(self.losses, ax=ax)

    def load(self) -> GeneratorAdapter:
        """The generator, as ``cp.load(folder)``."""
        return load_folder(self.folder)

    def push_to_hub(
        self, repository: str, *, licence: str | None = None, private: bool = False, revision: str | None = None
    ) -> str:
        """Push weights, card, pictures and losses into a repository of the Hugging Face hub; gives its address.

        >>> cp.train("vae", "pictures", size=64, out="out/mine").push_to_hub("user/name")  # doctest: +SKIP
        'hf:user/name'

        It is created where there is none, ``private`` or not; all files are one commit. ``licence`` is an
        identifier of the hub, such as ``"mit"``. To share what was measured as well, modules and hybrids, push the
        generator: :meth:`GeneratorAdapter.push_to_hub`.
        """
        from .record.push import push_training

        return push_training(self.folder, repository, licence=licence, private=private, revision=revision)
