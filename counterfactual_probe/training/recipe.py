"""What is trained and how: one class for a model and its losses, found by name through entry points."""

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
    """A loss by which one optimiser is to make a step, and values to be shown beside it.

    Attributes:
        optimiser: its name, as in :meth:`Recipe.optimisers`.
        loss: a scalar with its graph.
        shown: scalars for the progress bar, the file of losses and the card.
    """

    optimiser: str
    loss: Tensor
    shown: Mapping[str, Tensor]


def risen(number: int, steps: int) -> float:
    """How far what rises evenly to 1 in so many steps has come in this one, counted from 0; 1 where it takes none."""
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
        warmup: steps in which the learning rate rises to ``lr``, evenly. Deep autoencoders may fall for good to one and
            the same image when it is high from the start.
        decay: steps after which it has fallen to 0, along half a cosine; 0 for a rate that does not fall.
        state: tensors beside the networks' that losses depend on; they are kept with a checkpoint.
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
        """This recipe for these images; one that needs classes takes their names here."""
        del images
        return self

    def configuration(self, image: tuple[int, int, int]) -> dict[str, Any]:
        """What the tensors of "model" do not tell its architecture, for config.json."""
        del image
        return {}

    @abstractmethod
    def networks(self, image: tuple[int, int, int]) -> dict[str, nn.Module]:
        """New networks by name, for images (C, H, W). Torch's global generator is seeded when this is called."""

    @abstractmethod
    def optimisers(self, networks: Mapping[str, nn.Module]) -> dict[str, torch.optim.Optimizer]:
        """Optimisers by name; together they hold every parameter that is trained. One may be in several."""

    @abstractmethod
    def step(self, step: Step) -> Iterator[Update]:
        """Yield the losses of one step, one after the other: each optimiser has stepped when the next line runs."""

    @abstractmethod
    def samples(self, networks: Networks, step: Step) -> Tensor:
        """Images of latents that are drawn from the step; networks are in eval mode, without gradients."""

    def reconstructions(self, networks: Networks, images: Tensor) -> Tensor | None:
        """What the model makes of given images, or None if it cannot."""
        del networks, images
        return None

    @abstractmethod
    def files(self, networks: Mapping[str, nn.Module]) -> dict[str, dict[str, Tensor]]:
        """Tensors by file: "model" is what ``architecture`` builds from, others lie beside it."""

    def rate(self, number: int) -> float:
        """By what the learning rates are multiplied in this step, counted from 0."""
        rate = risen(number, self.warmup)
        if self.decay:
            rate *= (1 + math.cos(math.pi * min(1.0, number / self.decay))) / 2
        return rate

    def settings(self) -> dict[str, Any]:
        """All settings by name."""
        return {item.name: getattr(self, item.name) for item in dataclasses.fields(self) if item.init}

    def require_positive(self, *names: str) -> None:
        """Raise a ProbeError if one of these settings is no finite number above zero."""
        for name in names:
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < float("inf"):
                raise ProbeError(f"{name} is {value!r}; give a number above 0")


@dataclass(frozen=True)
class Trainable:
    """What ``train`` takes by name: a recipe with settings, and the data and length of a model that ships.

    Attributes:
        summary: a line on what comes out.
        recipe: the class.
        settings: those that differ from the recipe's defaults.
        data: what to train on, where no other is given; None if it must be.
        data_wanted: what that should be, in words.
        images: how many, of a generator.
        size: side of the images; None for that of the data.
        precision: in which it is trained, where no other is asked for.
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
        """The recipe with these settings over its own; a ProbeError names those that it does not have."""
        known = {item.name for item in dataclasses.fields(self.recipe) if item.init}
        for name in settings:
            if name not in known:
                raise ProbeError(
                    f"{self.name} has no setting {name!r}, which would be ignored; leave it out (it has "
                    f"{', '.join(sorted(known))})"
                )
        return self.recipe(**{**self.settings, **settings})


def recipes() -> list[str]:
    """Names of all that can be trained, sorted.

    >>> from counterfactual_probe.training import recipes
    >>> [name for name in recipes() if name.startswith("vae")]
    ['vae', 'vae-cifar10', 'vae-faces', 'vae-faces-sharp']
    """
    return list(_entries())


def trainable(name: str) -> Trainable:
    """What can be trained under this name."""
    entries = _entries()
    if name not in entries:
        raise ProbeError(
            f"no model named {name!r} can be trained; nearest: {nearest(str(name), entries)} (all: "
            f"{', '.join(entries)}; a package adds one with an entry point of the group {GROUP})"
        )
    return imported(entries[name], "model to train", Trainable)


def _entries() -> dict[str, EntryPoint]:
    return by_name(entry_points(group=GROUP), "a model to train")
