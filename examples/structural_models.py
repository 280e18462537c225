"""The models of S004, their sizes, and trainings with several evaluations.

Started again, a training resumes where it stopped, and evaluations that were made are read from files.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy
import torch
from torch import Tensor

import counterfactual_probe as cp
from counterfactual_probe.base.errors import ProbeError, whole
from counterfactual_probe.base.files import write_bytes, write_json
from counterfactual_probe.data.scene import SCENE
from counterfactual_probe.training import Recipe, trainable
from counterfactual_probe.training.recipe import Precision

if TYPE_CHECKING:
    from structural_data import Split

CHUNK = 250
_COUNTS = ("batch", "stages", "steps", "rows", "images", "validation", "test")


@dataclass(frozen=True)
class Model:
    """The model's name in ``counterfactual-probe train``, and its settings.

    Attributes:
        as_large_as: the model whose number of parameters it has, as nearly as more convolutions allow.
    """

    command: str
    settings: dict[str, Any] = field(default_factory=dict)
    as_large_as: str = ""


def _rungs(name: str, command: str, counts: tuple[int, ...]) -> dict[str, Model]:
    return {f"{name}-{k}": Model(command, {"variables": k}) for k in counts}


MODELS: dict[str, Model] = {
    **_rungs("SAE", "sae", (16, 12, 6, 4, 3, 2)),
    **_rungs("AdaAE", "adaae", (16, 12)),
    **_rungs("VLAE", "vlae", (16, 12, 6, 4, 3, 2)),
    "AE": Model("ae"),
    # SAE-12 has 39 % more parameters than AE at 32 channels, and 19 % more at 64.
    "AE-equal": Model("ae", as_large_as="SAE-12"),
    "WAE": Model("wae"),
    "VAE": Model("betavae"),
    "βVAE": Model("betavae", {"beta": 2.0}),
}
OURS = "SAE-"  # the first of these is compared with all other models
VARIATIONAL = ("VAE", "βVAE", "VLAE")
VARIATIONAL_COMMANDS = ("betavae", "vlae")
PAPER_SIDE = 64


@dataclass(frozen=True)
class Size:
    """The size of an experiment.

    Attributes:
        models: the models to compare, if no others are named.
        images, validation, test: number of images of the three parts of the data; None for all.
        warmup: steps in which the learning rate rises, at most a quarter of all; 0 for a constant one, as in the paper:
            see ``schedule``.
        deviation: standard deviation of the posterior at the start, for VAEs and ladders.
        stages: number of evaluations of a training.
        rows: number of test images on which metrics are fitted; they are measured on the others.
    """

    side: int = 16
    width: int = 32
    convolutions: int = 12
    latent: int = 12
    batch: int = 32
    lr: float = 5e-4
    warmup: int = 1000
    deviation: float = 0.01
    steps: int = 4000
    stages: int = 16
    images: int | None = 20_000
    validation: int | None = 1000
    test: int | None = 2100
    rows: int = 1400
    precision: Precision = "float32"
    models: tuple[str, ...] = ("SAE-12", "AE", "VAE", "VLAE-12")

    @property
    def schedule(self) -> int:
        """Steps in which the learning rate falls to 0 and the KL's weight rises: all of them; 0 for constants."""
        return self.steps if self.warmup else 0

    def settings(self, model: Model) -> dict[str, Any]:
        """All settings of ``train`` for a model, except the number of steps."""
        names = ("width", "convolutions", "latent", "batch", "lr")
        found = {name: getattr(self, name) for name in names} | model.settings
        found |= {"warmup": min(self.warmup, self.steps // 4), "decay": self.schedule}
        if model.as_large_as:
            found["convolutions"] = _convolutions(model, self)
        if model.command in VARIATIONAL_COMMANDS:
            # Errors are summed over pixels: this weight of the KL keeps the paper's balance for smaller images.
            beta = found.get("beta", 1.0) * min(1.0, (self.side / PAPER_SIDE) ** 2)
            found |= {"beta": beta, "anneal": self.schedule, "deviation": self.deviation}
        return found


def _convolutions(model: Model, size: Size) -> int:
    """Their number with which the model is nearest in parameters to the one it is as large as."""
    wanted = parameters_of(MODELS[model.as_large_as], size)
    alone = dataclasses.replace(model, as_large_as="")
    tried = {
        number: parameters_of(alone, dataclasses.replace(size, convolutions=number))
        for number in range(size.convolutions, 2 * size.convolutions + 1)
    }
    return min(tried, key=lambda number: abs(tried[number] - wanted))


def parameters_of(model: Model, size: Size) -> int:
    """How many a model of this size has."""
    with torch.device("meta"):
        networks = trainable(model.command).make(size.settings(model)).networks((3, size.side, size.side))
    return sum(value.numel() for network in networks.values() for value in network.parameters())


REDUCED = Size()
_FULL: dict[str, Any] = {"stages": 20, "images": None, "test": 15_000, "rows": 10_000, "warmup": 0, "deviation": 1.0}
FACES = ("SAE-16", "AdaAE-16", "VLAE-16", "AE", "VAE")
SIZES = {
    "reduced": REDUCED,
    # S004 A.2: 3D-Shapes and MPI3D; and, in the next line, CelebA and RFD, given by --data.
    "paper": Size(64, 64, 12, 12, 128, steps=100_000, validation=10_000, **_FULL),
    "paper-128": Size(128, 128, 16, 32, 32, steps=200_000, validation=10_000, models=FACES, **_FULL),
}


@dataclass(frozen=True)
class Seen:
    """An evaluation of a model: its error on validation images, and the codes of the test images."""

    steps: int
    error: float
    codes: npt.NDArray[np.float32] = field(repr=False)
    reconstruction: float  # of the test images


def watched(
    name: str, size: Size, data: Split, folder: Path, *, seed: int = 0, device: str | None = None
) -> list[Seen]:
    """Train a model, and evaluate it after every stage."""
    model = MODELS[name]
    found = []
    _require_same(folder / "seen" / "of.json", {"settings": size.settings(model), "seed": seed, "data": data.mark})
    for stage in range(1, size.stages + 1):
        steps = size.steps * stage // size.stages
        kept = folder / "seen" / f"{steps:06d}.safetensors"
        if not kept.exists():
            cp.train(
                model.command, data.train, out=folder, steps=steps, seed=seed, precision=size.precision,
                device=device, resume=True, show_progress=True, **size.settings(model),
            )  # fmt: skip
            _keep(look(cp.load(folder, device=device), data), kept)
        found.append(_read(kept, steps))
    return found


def _require_same(path: Path, asked: dict[str, Any]) -> None:
    """Raise if the evaluations in the folder are those of another model or other data."""
    asked = json.loads(json.dumps(asked))
    if not path.exists():
        write_json(path, asked)
    found = json.loads(path.read_text(encoding="utf-8"))
    for name, value in asked.items():
        if found.get(name) != value:
            raise ProbeError(
                f"{path.parent.parent} holds a model whose {name} is {found.get(name)!r} and not {value!r}; give "
                "another --out, or delete it"
            )


def look(gen: Any, data: Split) -> dict[str, npt.NDArray[Any]]:
    """An evaluation of a model, as arrays to save."""
    (_, error), (codes, reconstruction) = (both_ways(gen, images) for images in (data.validation, data.test))
    return {"codes": codes.numpy(), "error": np.array(error), "reconstruction": np.array(reconstruction)}


def both_ways(gen: Any, images: Tensor) -> tuple[Tensor, float]:
    """The codes of images given as bytes, and the mean squared error of their reconstructions."""
    codes, squared = [], 0.0
    for part in torch.split(images, CHUNK):
        given = part.float() / 255
        codes.append(gen.encode(given).float().cpu())
        made = gen(codes[-1].to(gen.device, gen.dtype)).float().cpu()
        squared += float((made - given).square().mean((1, 2, 3)).sum())
    return torch.cat(codes), squared / len(images)


def recipe_of(name: str, size: Size) -> Recipe:
    """The recipe with its settings."""
    model = MODELS[name]
    return trainable(model.command).make(size.settings(model))


def add_options(parser: argparse.ArgumentParser, *, out: str, data: str) -> None:
    """Options that both experiments have."""
    parser.add_argument("--out", type=Path, default=Path(out), help="folder for everything (%(default)s)")
    parser.add_argument(
        "--size", choices=list(SIZES), default="reduced", help="the paper's sizes need a GPU (%(default)s)"
    )
    parser.add_argument("--data", default=SCENE, help=f"{data} (%(default)s)")
    parser.add_argument("--models", nargs="+", help=f"some of {', '.join(MODELS)}; by default those of the size")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="S004 has five: 0 1 2 3 4")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="by default a GPU if there is one")
    for name in (*_COUNTS, "latent", "width", "side", "convolutions", "warmup"):
        parser.add_argument(f"--{name}", type=int, help="instead of the value of --size")


def chosen_size(options: argparse.Namespace) -> Size:
    """The size, with the options that were given instead of its values."""
    given = {item.name: getattr(options, item.name, None) for item in dataclasses.fields(Size)}
    size = dataclasses.replace(
        SIZES[options.size], **{name: value for name, value in given.items() if value is not None}
    )
    for name in _COUNTS:
        if getattr(size, name) is not None:
            whole(getattr(size, name), name, 1)
    for model in size.models:
        if model not in MODELS:
            raise ProbeError(f"no model is called {model!r}; the models are {', '.join(MODELS)}")
        with torch.device("meta"):  # raises errors before images are made
            recipe_of(model, size).networks((3, size.side, size.side))
    return size


def _keep(values: dict[str, npt.NDArray[Any]], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, safetensors.numpy.save({name: np.ascontiguousarray(value) for name, value in values.items()}))


def _read(path: Path, steps: int) -> Seen:
    values = safetensors.numpy.load_file(path)
    return Seen(steps, values["error"].item(), values["codes"], values["reconstruction"].item())
