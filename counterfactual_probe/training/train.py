"""Train a generator: the one function behind ``counterfactual-probe train``."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
from pathlib import Path
from typing import Any

from ..base.errors import ProbeError, whole
from ..data import Images, open_images
from ..data.generated import PREFIX
from ..data.scene import SCENE
from ..data.sources import Data
from .launch import accelerated
from .plan import Plan
from .recipe import Precision, Recipe, Trainable, trainable
from .record.output import bytes_needed, holds_training
from .result import Trained
from .trainer import Trainer

DRAWN = 20_000  # images drawn from a generator or the scene where nobody says how many
# Settings of recipes that the command has options for; --set takes the others.
OPTIONS = ("beta", "latent", "width", "batch", "lr")


def train(
    model: str | Recipe,
    data: Data | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    size: int | None = None,
    colours: int | None = None,
    images: int | None = None,
    terms: str | None = None,
    cache: str | os.PathLike[str] | None = None,
    skip_unreadable: bool = False,
    steps: int | None = None,
    epochs: float | None = None,
    seed: int = 0,
    precision: Precision | None = None,
    device: str | None = None,
    resume: bool = False,
    show_progress: bool = False,
    **settings: Any,
) -> Trained:
    """Train a model by name, or a recipe of your own, and write a folder that ``cp.load`` opens.

    >>> cp.train("vae", "pictures", size=64, out="out/mine", beta=0.0005)  # doctest: +SKIP
    >>> cp.load("out/mine")  # doctest: +SKIP

    The same arguments give the same losses, bit for bit on one CPU. A run that is killed goes on with ``resume=True``.

    Args:
        model: a name, see :func:`training.recipes`, or a :class:`training.Recipe`.
        data: what :func:`data.open_images` takes; models that ship have their own.
        out: the folder, by default ``out/`` and the model's name.
        size, colours, images, terms, cache, skip_unreadable: of the data, see :func:`data.open_images`.
        steps: how many; or ``epochs``, times that all images are seen.
        precision: "float32", or "bf16" for mixed precision; by default the model's own, which is float32 for most.
        device: "cpu" or "cuda"; by default a GPU where there is one. ``accelerate launch`` or ``torchrun`` use several.
        resume: go on from the checkpoint in ``out``, or start if there is none.
        settings: of the recipe, such as ``beta``, ``latent``, ``width``, ``batch``, ``lr``.

    Raises:
        ProbeError: unknown names and settings, data that does not fit, other settings than those of the run that is
            resumed, a full disk, a diverging run.
    """
    asked: dict[str, Any] = {"size": size, "colours": colours, "images": images, "terms": terms}
    asked["skip_unreadable"] = skip_unreadable
    length = {"steps": steps, "epochs": epochs}
    plan = planned(
        model, data, out=out, asked=asked, cache=cache, length=length, seed=seed, precision=precision, device=device,
        resume=resume, show_progress=show_progress, settings=settings,
    )  # fmt: skip
    return execute(plan, resume=resume, show_progress=show_progress)


def planned(
    model: str | Recipe,
    data: Data | None,
    *,
    out: str | os.PathLike[str] | None,
    asked: dict[str, Any],
    cache: str | os.PathLike[str] | None,
    length: dict[str, Any],
    seed: int,
    precision: Precision | None,
    device: str | None,
    resume: bool,
    show_progress: bool,
    settings: dict[str, Any],
) -> Plan:
    """Everything settled and the data decoded, so that what was done to it can be said before it is trained on."""
    entry = _entry(model, settings)
    recipe = dataclasses.replace(model) if isinstance(model, Recipe) else entry.make(settings)
    folder = Path(out) if out is not None else Path("out") / entry.name
    if holds_training(folder) and not resume:
        raise ProbeError(
            f"{folder} holds a training or another generator; go on with resume=True, or --resume, or give another "
            "folder"
        )
    whole(seed, "the seed", 0)
    found = _images(entry, data, seed=seed, cache=cache, show_progress=show_progress, **asked)
    steps = _length(entry, recipe, len(found), **length)
    own = None if precision == entry.precision else precision
    plain = {name: value or None for name, value in {**asked, "seed": seed}.items()}  # what is the default goes untold
    command = _command(model, data, {**plain, **length, "precision": own, **settings})
    plan = Plan(
        entry.name, entry.summary, recipe, found, folder, steps, seed, precision or entry.precision, device, command
    )
    plan.check()
    return plan


def execute(plan: Plan, *, resume: bool, show_progress: bool) -> Trained:
    """Run a plan to its end."""
    with accelerated(plan.precision, plan.device) as accelerator:
        trainer = Trainer(plan, accelerator)
        parameters = sum(value.numel() for each in trainer.networks.plain.values() for value in each.parameters())
        if accelerator.is_main_process:
            trainer.output.prepare(bytes_needed(parameters))
        accelerator.wait_for_everyone()
        if resume:
            trainer.resume()
        return trainer.run(show_progress)


def _entry(model: str | Recipe, settings: dict[str, Any]) -> Trainable:
    if not isinstance(model, Recipe):
        return trainable(model)
    if settings:
        raise ProbeError(f"{next(iter(settings))} is given beside a recipe; give it to the recipe itself")
    name = type(model).__name__
    return Trainable(name.lower(), f"images by {name}", type(model))


def _images(entry: Trainable, data: Data | None, **asked: Any) -> Images:
    if data is None:
        data = entry.data
    if data is None:
        raise ProbeError(f"{entry.name} has no data of its own; give data=, or --data: {entry.data_wanted}")
    if isinstance(data, str) and (data.startswith(PREFIX) or data == SCENE) and asked["images"] is None:
        asked["images"] = entry.images or DRAWN
    if isinstance(data, (str, os.PathLike)) and asked["size"] is None:
        asked["size"] = entry.size
    return open_images(data, **asked)


def _length(entry: Trainable, recipe: Recipe, n: int, steps: int | None, epochs: float | None) -> int:
    if steps is not None and epochs is not None:
        raise ProbeError(f"both steps ({steps}) and epochs ({epochs:g}) are given; give one")
    if epochs is not None:
        if not 0 < epochs < float("inf"):
            raise ProbeError(f"epochs is {epochs!r}; give a number above 0")
        return max(1, round(epochs * (n // recipe.batch)))
    return whole(entry.steps if steps is None else steps, "steps", 1)


def _command(model: str | Recipe, data: Data | None, told: dict[str, Any]) -> str:
    """The command that does this again, or the call where no command can."""
    told = {name: value for name, value in told.items() if value is not None}
    if isinstance(model, Recipe) or not (data is None or isinstance(data, (str, os.PathLike))):
        shown = "".join(f", {name}={value!r}" for name, value in told.items())
        given = f", {os.fspath(data)!r}" if isinstance(data, (str, os.PathLike)) else "" if data is None else ", data"
        return f"cp.train({model!r}{given}{shown})"
    words = ["counterfactual-probe", "train", model]
    words += [] if data is None else ["--data", os.fspath(data)]
    options = (*OPTIONS, "size", "colours", "images", "seed", "terms", "steps", "epochs", "precision")
    for name, value in told.items():
        if name == "skip_unreadable":
            words.append("--skip-unreadable")
            continue
        words += [f"--{name}", str(value)] if name in options else ["--set", f"{name}={json.dumps(value)}"]
    return shlex.join(words)
