"""Train a generator: the function behind ``counterfactual-probe train``."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from ..base.errors import ProbeError, whole
from ..base.files import as_path, require_writable
from ..data import Images, open_images
from ..data.generated import PREFIX
from ..data.scene import SCENE
from ..data.sources import Data
from ..distributed.exchange import together, told_to_all
from ..distributed.ranks import current_ranks
from ..registry.folders import folder_files
from ..registry.pretrained import load
from .launch import accelerated, group_device, require_accelerate
from .plan import Start, TrainingPlan
from .recipe import Precision, Recipe, Trainable, trainable
from .record.output import bytes_needed, holds_training
from .request import RunOptions, TrainingRequest
from .result import Trained
from .trainer import Trainer

DRAWN = 20_000  # default number of images sampled from a generator or the scene


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
    start: str | os.PathLike[str] | None = None,
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
        data: what :func:`data.open_images` takes; by default the model's own, if it has any.
        out: the folder, by default ``out/`` and the model's name.
        size, colours, images, terms, cache, skip_unreadable: of the data, see :func:`data.open_images`.
        steps: how many; or ``epochs``, passes over all images.
        precision: "float32", or "bf16" for mixed precision; by default the model's own, which is float32 for most.
        start: weights to begin with, of a trained model of the same kind and settings: a name, folder or repository as
            :func:`cp.load <counterfactual_probe.load>` takes it. Moments of the optimisers, learning rates and the
            order of images begin anew.
        device: "cpu" or "cuda"; by default a GPU where there is one. ``accelerate launch`` or ``torchrun`` use several.
        resume: continue from the checkpoint in ``out``, or start if there is none.
        settings: of the recipe, such as ``beta``, ``latent``, ``width``, ``batch``, ``lr``.

    Raises:
        ProbeError: unknown names and settings, data that does not fit, settings that differ from those of the resumed
            run, a full disk, a diverging run.
    """
    request = TrainingRequest(
        model=model,
        data=data,
        size=size,
        colours=colours,
        images=images,
        terms=terms,
        skip_unreadable=skip_unreadable,
        seed=seed,
        steps=steps,
        epochs=epochs,
        precision=precision,
        start=start,
        settings=settings,
    )
    run = RunOptions(out=out, cache=cache, device=device, resume=resume, show_progress=show_progress)
    return execute(planned(request, run), run)


def planned(request: TrainingRequest, run: RunOptions) -> TrainingPlan:
    """Settle everything and decode the data, so that its notes can be printed before the training begins."""
    with told_to_all(group_device(run.device)):
        return _planned(request, run)


def _planned(request: TrainingRequest, run: RunOptions) -> TrainingPlan:
    entry = _trainable_of(request)
    given = request.model if isinstance(request.model, Recipe) else None
    recipe = entry.make(request.settings) if given is None else dataclasses.replace(given)
    folder = as_path(run.out) if run.out is not None else Path("out") / entry.name
    if holds_training(folder) and not run.resume:
        raise ProbeError(
            f"{folder} holds a training or another generator; go on with resume=True, or --resume, or give another "
            "folder"
        )
    whole(request.seed, "the seed", 0)
    require_accelerate()  # now, and so is a folder, before images are decoded
    require_writable(folder)
    start = None if request.start is None else _start_of(request.start)
    images = _open_training_images(entry, request, run)
    recipe = recipe.suited(images)
    # The command need not repeat the model's own precision.
    repeated = dataclasses.replace(request, precision=None) if request.precision == entry.precision else request
    plan = TrainingPlan(
        name=entry.name,
        summary=entry.summary,
        recipe=recipe,
        images=images,
        out=folder,
        steps=_steps(entry, recipe, len(images), request),
        seed=request.seed,
        precision=request.precision or entry.precision,
        device=run.device,
        command=repeated.command(),
        start=start,
    )
    plan.check()
    return plan


def execute(plan: TrainingPlan, run: RunOptions) -> Trained:
    """Run a plan to its end. What fails on one of several ranks is raised on all."""
    with together(current_ranks(group_device(plan.device))) as exchange:
        exchange.agree()
        with accelerated(plan.precision, plan.device) as accelerator:
            # A relative folder is another one on a rank that was started elsewhere.
            exchange.require_same({**plan.identity, "folder": str(plan.out.absolute())})
            trainer = Trainer(plan, accelerator, exchange)
            parameters = sum(value.numel() for each in trainer.networks.plain.values() for value in each.parameters())
            if accelerator.is_main_process:
                trainer.output.prepare(bytes_needed(parameters))
            exchange.agree()
            if run.resume:
                trainer.resume()
            return trainer.run(run.show_progress)


def _trainable_of(request: TrainingRequest) -> Trainable:
    if not isinstance(request.model, Recipe):
        return trainable(request.model)
    if request.settings:
        raise ProbeError(f"{next(iter(request.settings))} is given beside a recipe; give it to the recipe itself")
    name = type(request.model).__name__
    return Trainable(name.lower(), f"images by {name}", type(request.model))


def _start_of(name: str | os.PathLike[str]) -> Start:
    """The tensors of a trained model's folder."""
    folder = load(name).folder
    if folder is None:
        raise ProbeError(
            f"{os.fspath(name)} is no model that was trained here; give one of the folders that train writes"
        )
    return Start(os.fspath(name), folder_files(folder))


def _open_training_images(entry: Trainable, request: TrainingRequest, run: RunOptions) -> Images:
    data = entry.data if request.data is None else request.data
    if data is None:
        raise ProbeError(f"{entry.name} has no data of its own; give data=, or --data: {entry.data_wanted}")
    images, size = request.images, request.size
    if isinstance(data, str) and (data.startswith(PREFIX) or data == SCENE) and images is None:
        images = entry.images or DRAWN
    if isinstance(data, (str, os.PathLike)) and size is None:
        size = entry.size
    return open_images(
        data,
        size=size,
        colours=request.colours,
        images=images,
        seed=request.seed,
        terms=request.terms,
        cache=run.cache,
        skip_unreadable=request.skip_unreadable,
        show_progress=run.show_progress,
    )


def _steps(entry: Trainable, recipe: Recipe, n_images: int, request: TrainingRequest) -> int:
    steps, epochs = request.steps, request.epochs
    if steps is not None and epochs is not None:
        raise ProbeError(f"both steps ({steps}) and epochs ({epochs:g}) are given; give one")
    if epochs is not None:
        if not 0 < epochs < float("inf"):
            raise ProbeError(f"epochs is {epochs!r}; give a number above 0")
        return max(1, round(epochs * (n_images // recipe.batch)))
    return whole(entry.steps if steps is None else steps, "steps", 1)
