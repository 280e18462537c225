"""The folder of a training: model, model card, losses and grids, each written atomically."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from ...base.errors import ProbeError
from ...base.files import write_bytes
from ...distributed.ranks import Ranks
from ...registry.folders import CARD, CONFIG, WEIGHTS, save_folder
from ..plan import TrainingPlan
from .card import model_card
from .losses import Losses

STATE, LOSSES = "state.safetensors", "losses.csv"


class Output:
    """Where a plan's files go."""

    def __init__(self, plan: TrainingPlan, device: torch.device, ranks: Ranks) -> None:
        self.plan, self._device, self._ranks = plan, device, ranks
        self.losses = plan.out / LOSSES

    def write(self, files: Mapping[str, Mapping[str, Tensor]], losses: Losses, seconds: float) -> None:
        """Write everything that resuming does not need."""
        plan = self.plan
        losses.save(self.losses)
        for name, tensors in files.items():
            if name != "model":
                plain = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
                write_bytes(plan.out / f"{name}.safetensors", safetensors.torch.save(plain))
        text = model_card(plan, losses, seconds=seconds, device=self._device, ranks=self._ranks.world)
        save_folder(
            plan.out,
            plan.recipe.architecture,
            files["model"],
            config={**plan.recipe.configuration(plan.images.size), **_words(plan), "name": plan.name},
            card=text,
        )

    def prepare(self, needed: int) -> None:
        """Make the folder, remove leftovers of killed runs, and check that a checkpoint of so many bytes fits."""
        try:
            self.plan.out.mkdir(parents=True, exist_ok=True)
            # Temporary files of runs that were killed while they wrote.
            for name in (CONFIG, CARD, LOSSES, "*.safetensors", "*.png"):
                for path in self.plan.out.glob(f".{name}.*"):
                    path.unlink(missing_ok=True)
            free = shutil.disk_usage(self.plan.out).free
        except OSError as error:
            raise ProbeError(f"{self.plan.out} cannot be written ({error.strerror}); choose another folder") from error
        if free < needed:
            raise ProbeError(
                f"a checkpoint takes {needed / 1e6:.0f} MB and {self.plan.out} has {free / 1e6:.0f} MB left; free some "
                "space or choose another disk"
            )


def _words(plan: TrainingPlan) -> dict[str, str]:
    """What a model card says of the generator, where it is shared with what was measured of it."""
    made = ", made by a generator, none of them real" if plan.images.generated else ""
    trained_on = f"{len(plan.images)} images: {plan.images.source}{made}"
    return {"summary": plan.summary, "trained_on": trained_on, "terms": plan.images.terms, "source": plan.command}


def bytes_needed(parameters: int) -> int:
    """Bytes of a checkpoint and the model beside it, in float32: weights twice, two moments, and one file being
    replaced."""
    return 4 * parameters * (2 + 2 + 3)


def holds_training(out: Path) -> bool:
    """Whether a folder holds a training, or any generator."""
    return (out / STATE).exists() or any((out / name).exists() for name in WEIGHTS)
