"""What is trained and how: one class for a model and its losses, registered by name through entry points."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any, ClassVar, Literal, TypeAlias

import torch
from torch import Tensor, nn

from ..base.errors import ProbeError, nearest, whole
from ..base.plugins import by_name, imported
from ..data import Images
from .step import Networks, Step

GROUP = "counterfactual_probe.recipes"
Precision: TypeAlias = Literal["float32", "bf16"]
PRECISIONS: tuple[Precision, ...] = ("float32", "bf16")


@dataclass(frozen=True)
class Update:
    """A loss for one step of one optimiser, and values to be shown with it.

    Attributes:
        optimiser: its name, as in :meth:`Recipe.optimisers`.
        loss: a scalar with its graph.
        shown: scalars for the progress bar, losses.csv and the model card.
    """

    optimiser: str
    loss: Tensor
    shown: Mapping[str, Tensor]


def linear_warmup(number: int, steps: int) -> float:
    """Linear warm-up factor at step ``number`` (0-based); 1 if ``steps`` is 0."""
    return min(1.0, (number + 1) / max(1, steps))


@dataclass
class Recipe(ABC):
    """A model, its optimisers and its losses. A subclass is a dataclass whose fields are the settings.

    >>> from counterfactual_probe.training import trainable
    >>> recipe = trainable("vae").recipe(latent=8, beta=0.001)
    >>> recipe.settings()["latent"], sorted(recipe.networks((3, 16, 16)))
    (8, ['decoder', 'encoder'])

    Attributes:
        architecture: of the folder that is written, so that ``cp.load`` opens it.
        batch: images per step, over all ranks.
        lr: the learning rate.
        warmup: steps of linear warm-up of the learning rate. Without it, deep autoencoders may collapse to a single
            image and never recover.
        decay: steps after which cosine decay has brought the learning rate to 0; 0 for a constant rate.
        state: further tensors that losses depend on, beside the networks'; checkpoints contain them.
    """

    architecture: ClassVar[str]
    batch: int = 64
    lr: float = 1e-3
    warmup: int = field(default=0, kw_only=True)
    decay: int = field(default=0, kw_only=True)
    state: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        whole(self.batch, "batch", 1)
        for name in ("warmup", "decay"):
            whole(getattr(self, name), name, 0)
        self.require_positive("lr")

    def suited(self, images: Images) -> Recipe:
        """This recipe for these images; a class-conditional one takes the names of the classes from them."""
        del images
        return self

    def configuration(self, image: tuple[int, int, int]) -> dict[str, Any]:
        """Entries of config.json: what the architecture cannot derive from the tensors of "model"."""
        del image
        return {}

    @abstractmethod
    def networks(self, image: tuple[int, int, int]) -> dict[str, nn.Module]:
        """New networks by name, for images (C, H, W). Torch's global generator is seeded when this is called."""

    @abstractmethod
    def optimisers(self, networks: Mapping[str, nn.Module]) -> dict[str, torch.optim.Optimizer]:
        """Optimisers by name; together they hold every trained parameter. A parameter may be in several."""

    @abstractmethod
    def step(self, step: Step) -> Iterator[Update]:
        """Yield the losses of one step in turn; each optimiser steps before the generator is resumed."""

    @abstractmethod
    def samples(self, networks: Networks, step: Step) -> Tensor:
        """Images of latents sampled with the step's random numbers; networks are in eval mode, without gradients."""

    def reconstructions(self, networks: Networks, images: Tensor) -> Tensor | None:
        """The model's reconstructions of images, or None if it makes none."""
        del networks, images
        return None

    @abstractmethod
    def files(self, networks: Mapping[str, nn.Module]) -> dict[str, dict[str, Tensor]]:
        """Tensors by file: "model" holds those that ``architecture`` builds from, others are written beside it."""

    def begin(self, networks: Mapping[str, nn.Module], files: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Give new networks the weights of a trained model, tensors by file as in :meth:`files`.

        As it stands for recipes whose files hold the networks' own tensors. One that files an average, or anything
        derived, says here where it goes.
        """
        missing = {id(value): name for network in networks.values() for name, value in network.named_parameters()}
        places = {value.data_ptr(): id(value) for network in networks.values() for value in network.parameters()}
        for file, own in self.files(networks).items():
            held = {name: value for name, value in own.items() if value.numel()}
            copied(held, files, file)
            for value in held.values():
                missing.pop(places.get(value.data_ptr(), 0), None)
        if missing:
            raise ProbeError(
                f"{type(self).__name__} cannot start from weights: its files do not hold "
                f"{next(iter(missing.values()))}; leave out start, or define its begin()"
            )

    def rate(self, number: int) -> float:
        """The factor of the learning rates at step ``number`` (0-based)."""
        rate = linear_warmup(number, self.warmup)
        if self.decay:
            rate *= (1 + math.cos(math.pi * min(1.0, number / self.decay))) / 2
        return rate

    def settings(self) -> dict[str, Any]:
        """All settings by name."""
        return {item.name: getattr(self, item.name) for item in dataclasses.fields(self) if item.init}

    def require_positive(self, *names: str) -> None:
        """Raise a ProbeError if one of these settings is not a finite number above zero."""
        for name in names:
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < float("inf"):
                raise ProbeError(f"{name} is {value!r}; give a number above 0")


@torch.no_grad()
def copied(own: Mapping[str, Tensor], files: Mapping[str, Mapping[str, Tensor]], file: str) -> None:
    """Set tensors to those of a file; a ProbeError says which file or tensor is missing, or has another shape."""
    if file not in files:
        raise ProbeError(
            f"the weights to start from lack {file}.safetensors; give the folder of a whole training, or leave out "
            "start"
        )
    for name, value in own.items():
        given = files[file].get(name)
        if given is None or given.shape != value.shape:
            found = "missing" if given is None else "×".join(map(str, given.shape)) or "a number"
            raise ProbeError(
                f"the weights to start from are of another network: {name} of {file} is {found}, and "
                f"{'×'.join(map(str, value.shape)) or 'a number'} here; give the settings they were trained with"
            )
        value.copy_(given)


@dataclass(frozen=True)
class Trainable:
    """A model that ``train`` knows by name: a recipe with settings, and defaults for data and length.

    Attributes:
        summary: a line on what the trained model generates.
        recipe: the class.
        settings: those that differ from the recipe's defaults.
        data: the default data; None if data must be given.
        data_wanted: in words, what must be given.
        images: how many, of a generator.
        size: side of the images; None for that of the data.
        precision: the default precision.
    """

    name: str
    summary: str
    recipe: type[Recipe]
    settings: Mapping[str, Any] = field(default_factory=dict)
    data: str | None = None
    data_wanted: str = "a folder or zip of images, an .npy file, or generator:NAME"
    images: int | None = None
    size: int | None = None
    steps: int = 20_000
    precision: Precision = "float32"

    def make(self, settings: Mapping[str, Any]) -> Recipe:
        """The recipe with these settings over the model's own; a ProbeError names one that it does not have."""
        known = {item.name for item in dataclasses.fields(self.recipe) if item.init}
        for name in settings:
            if name not in known:
                raise ProbeError(
                    f"{self.name} has no setting {name!r}, which would be ignored; leave it out (it has "
                    f"{', '.join(sorted(known))})"
                )
        return self.recipe(**{**self.settings, **settings})


def recipes() -> list[str]:
    """Names of all models that can be trained, sorted.

    >>> from counterfactual_probe.training import recipes
    >>> [name for name in recipes() if name.startswith("vae")]
    ['vae', 'vae-cifar10', 'vae-faces', 'vae-faces-sharp']
    """
    return list(_recipe_plugins())


def trainable(name: str) -> Trainable:
    """The model of this name."""
    entries = _recipe_plugins()
    if name not in entries:
        raise ProbeError(
            f"no model named {name!r} can be trained; nearest: {nearest(str(name), entries)} (all: "
            f"{', '.join(entries)}; a package adds one with an entry point of the group {GROUP})"
        )
    return imported(entries[name], "model to train", Trainable)


def _recipe_plugins() -> dict[str, list[EntryPoint]]:
    return by_name(lambda: entry_points(group=GROUP), "a model to train")
