"""The command ``counterfactual-probe train``."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..base.errors import ProbeError
from ..base.hub.address import HUB, repository_of
from .common import show
from .defaults import TRAINING_IMAGES, TRAINING_PRECISIONS
from .options.values import count, natural, number, positive

if TYPE_CHECKING:
    from ..training import Trained


def add_train(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command's parser."""
    parser = command(
        "train",
        _train,
        "train a generator of your own, or one that ships with the library anew",
        "train vae --data ~/Pictures --size 64 --steps 2000",
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="vae, dcgan, began, sae, …, a model that ships with the library, or one of a plug-in",
    )
    data = parser.add_argument_group("data")
    data.add_argument(
        "--data",
        type=os.path.expanduser,
        help="a folder or zip of images, a file (.npy, .h5, .npz), generator:NAME, or scene",
    )
    data.add_argument("--size", type=count, help="side of the images; others are cropped to squares and resized")
    data.add_argument("--colours", type=int, choices=[1, 3], help="3, or 1 for grey")
    data.add_argument(
        "--images",
        type=count,
        help=f"the most to take from files; how many to take from a generator or scene (default {TRAINING_IMAGES})",
    )
    data.add_argument("--terms", help="terms under which the images may be used, for the model card")
    data.add_argument("--skip-unreadable", action="store_true", help="leave out pictures that cannot be decoded")
    data.add_argument(
        "--cache", type=os.path.expanduser, metavar="FILE", help="cache the decoded images in this file for later runs"
    )
    model = parser.add_argument_group("model and losses (by default the model's own)")
    model.add_argument("-b", "--beta", type=number, help="weight of a VAE's KL")
    model.add_argument("--latent", type=count, help="dimensions of the latent")
    model.add_argument("--width", type=count, help="channels of the widest layer")
    model.add_argument("--batch", type=count, help="images per step")
    model.add_argument("--lr", type=positive, help="learning rate")
    model.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="any other setting")
    run = parser.add_argument_group("run")
    run.add_argument("--steps", type=count, help="how many steps of a batch (default: the model's own number)")
    run.add_argument("--epochs", type=positive, help="passes over the images, instead of --steps")
    run.add_argument("--seed", type=natural, default=0, help="of all that is drawn at random (default 0)")
    run.add_argument("--precision", choices=TRAINING_PRECISIONS, help="by default the model's own, float32 for most")
    run.add_argument(
        "--start",
        type=os.path.expanduser,
        metavar="GEN",
        help="begin with the weights of this trained model of the same kind and settings",
    )
    run.add_argument("--device", choices=["cpu", "cuda"], help="by default a GPU where there is one")
    run.add_argument("--resume", action="store_true", help="resume from the checkpoint in the folder, if there is one")
    run.add_argument("--out", type=os.path.expanduser, help="folder to write into (default out/MODEL)")
    run.add_argument(
        "--push", metavar="USER/NAME", help="push the trained folder into this repository of the Hugging Face hub"
    )
    run.add_argument("--no-progress", dest="progress", action="store_false", help="no progress bars on stderr")


def _train(options: argparse.Namespace) -> None:
    from ..base.hub.client import require_client
    from ..training.record.output import holds_training
    from ..training.request import OPTIONS, RunOptions, TrainingRequest
    from ..training.train import execute, planned

    first = os.environ.get("RANK", "0") == "0"  # only one of several processes prints

    def say(text: str) -> None:
        if first:
            show(text, to=sys.stderr)

    if options.push is not None:  # what would fail in the end fails now
        require_client(repr(f"{HUB}{repository_of(options.push)}"))
    settings = {name: getattr(options, name) for name in OPTIONS if getattr(options, name) is not None}
    for text in options.set:
        name, value = _setting(text)
        if name in settings or hasattr(options, name):
            raise ProbeError(f"--set {text} names an option; give --{name} once")
        settings[name] = value
    given = vars(options)
    request = TrainingRequest(
        **{item.name: given[item.name] for item in dataclasses.fields(TrainingRequest) if item.name in given},
        settings=settings,
    )
    run = RunOptions(
        out=options.out,
        cache=options.cache,
        device=options.device,
        resume=options.resume,
        show_progress=options.progress and first,
    )
    plan = planned(request, run)
    for note in plan.images.notes:
        say(note)
    if options.resume and not holds_training(plan.out):
        say(f"{plan.out} holds no checkpoint to resume from: training starts at step 0")
    trained = execute(plan, run)
    if trained.resumed_at:
        say(f"resumed from step {trained.resumed_at}")
    if first:
        _print(trained)
        if options.push is not None:
            show(trained.push_to_hub(options.push))


def _print(trained: Trained) -> None:
    from ..base.display.text import counted

    for name, values in trained.losses.items():
        show(f"{name}: {values[0]:.4g} in the first step, {values[-100:].mean():.4g} over the last 100")
    show(f"{counted(trained.steps, 'step')}, {trained.steps_per_second:.3g} per second")
    show(trained.folder)


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ProbeError(f"--set is {text!r}; give NAME=VALUE, such as gamma=0.7")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
