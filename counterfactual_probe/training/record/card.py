"""The model card of a trained model: data and terms, command, machine, losses, samples."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import torch

from ...base.display.markdown import code_block, escaped
from ...base.hub.card import PLACEHOLDER
from ...version import __version__
from ..plan import TrainingPlan
from .losses import Losses

_AVERAGED = 100  # last steps whose mean the table gives


def model_card(plan: TrainingPlan, losses: Losses, *, seconds: float, device: torch.device, ranks: int) -> str:
    """The text of README.md."""
    lines = [f"# {escaped(plan.name)}", "", f"{_sentence(plan.summary)}", ""]
    lines += ["```python", "import counterfactual_probe as cp", "", f'gen = cp.load("{PLACEHOLDER}")', "```", ""]
    lines += _data_lines(plan) + _run_lines(plan, losses, seconds, device, ranks) + _losses_and_grids(plan, losses)
    return "\n".join(lines) + "\n"


def _data_lines(plan: TrainingPlan) -> list[str]:
    images = plan.images
    lines = ["## Data", "", f"- Training images: {escaped(images.source)}, {'×'.join(map(str, images.size))}."]
    if images.generated:
        lines.append("- These images were made by a generator: none of them is real, and none is called so.")
    lines += [f"- Terms: {escaped(images.terms)}."]
    lines += [f"- {_sentence(note)}" for note in images.notes]
    lines += [f"- Left out: {escaped(name)}." for name in images.unreadable]
    return [*lines, f"- SHA-256 of the decoded images: `{plan.identity['data']}`.", ""]


def _run_lines(plan: TrainingPlan, losses: Losses, seconds: float, device: torch.device, ranks: int) -> list[str]:
    settings = ", ".join(escaped(f"{name} {_shown(value)}") for name, value in plan.recipe.settings().items())
    done = len(losses)
    return [
        "## Training",
        "",
        code_block(plan.command),
        "",
        f"- {done} of {plan.steps} steps ({done / plan.epoch_steps:.1f} epochs) in {_duration(seconds)}, in "
        f"{plan.precision}, seed {plan.seed}.",
        *(
            [f"- Started from the weights of {escaped(plan.start.name)}, SHA-256 `{plan.start.digest}`."]
            if plan.start
            else []
        ),
        f"- Settings: {settings}.",
        f"- Machine: {escaped(machine(device))}{f', {ranks} processes' if ranks > 1 else ''}.",
        f"- counterfactual-probe {__version__}, torch {torch.__version__}.",
        "",
    ]


def _losses_and_grids(plan: TrainingPlan, losses: Losses) -> list[str]:
    lines = ["## Losses", "", f"| | first step | mean of the last {min(_AVERAGED, len(losses))} |", "|---|---|---|"]
    for name, values in losses.columns().items():
        lines.append(f"| {escaped(name)} | {values[0]:.4g} | {values[-_AVERAGED:].mean():.4g} |")
    lines += ["", "Every step is in `losses.csv`.", ""]
    for kind, text in (
        ("samples", "Images of random latents, the same in every grid."),
        ("reconstructions", "Training images, and below each its reconstruction."),
    ):
        grids = sorted(plan.out.glob(f"{kind}-*.png"))
        if grids:
            lines += [f"## {kind.capitalize()}", "", f"{text}", "", f"![{kind}]({grids[-1].name})", ""]
    return lines[:-1]


def machine(device: torch.device) -> str:
    """The hardware that the duration depends on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{_processor()}, {threads} of {os.cpu_count()} threads, {platform.system()}"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines() if cpuinfo.exists() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


def _sentence(text: str) -> str:
    return escaped(f"{text[:1].upper()}{text[1:]}.")


def _shown(value: Any) -> str:
    return "–".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, hours = seconds / 60, seconds / 3600
    return f"{minutes:.1f} min" if minutes < 60 else f"{hours:.1f} h"
