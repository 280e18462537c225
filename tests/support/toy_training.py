"""Small recipes and images for the tests of training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from counterfactual_probe.adapters.autoencoder.recipe import (
    AdaAERecipe,
    AERecipe,
    SAERecipe,
    VariationalRecipe,
    VLAERecipe,
    WAERecipe,
)
from counterfactual_probe.adapters.began.recipe import BEGANRecipe
from counterfactual_probe.adapters.dcgan import DCGANGenerator
from counterfactual_probe.adapters.dcgan.recipe import DCGANRecipe
from counterfactual_probe.adapters.vae.independent_recipe import IndependentVAERecipe
from counterfactual_probe.adapters.vae.recipe import VAERecipe
from torch import Tensor, nn

import counterfactual_probe as cp
from counterfactual_probe.training import Networks, Recipe, Step, Trained, Update

SMALL: dict[str, tuple[type[Recipe], dict[str, Any]]] = {
    "vae": (VAERecipe, {"latent": 4, "width": 6, "batch": 5}),
    "dcgan": (DCGANRecipe, {"latent": 4, "width": 6, "batch": 5}),
    "began": (BEGANRecipe, {"latent": 4, "width": 6, "batch": 5, "k_rate": 0.2}),
}
# Those whose plain loop is in tests of their own.
OTHERS: dict[str, tuple[type[Recipe], dict[str, Any]]] = {
    "sdrvae": (IndependentVAERecipe, {"latent": 4, "width": 6, "batch": 5, "independence": 1.0})
}
# Structural autoencoders and their relatives, of four convolutions.
AUTOENCODERS: dict[str, tuple[type[Recipe], dict[str, Any]]] = {
    name: (recipe, {"latent": 4, "width": 8, "convolutions": 4, "batch": 5, **settings})
    for name, recipe, settings in (
        ("sae", SAERecipe, {"variables": 2}),
        ("adaae", AdaAERecipe, {"variables": 2}),
        ("ae", AERecipe, {}),
        ("wae", WAERecipe, {}),
        ("betavae", VariationalRecipe, {}),
        ("vlae", VLAERecipe, {"variables": 2, "width": 32}),
    )
}


def small(name: str, **changes: Any) -> Recipe:
    recipe, settings = (SMALL | OTHERS | AUTOENCODERS)[name]
    return recipe(**{**settings, **changes})


def squares(n: int = 23, size: int = 16, seed: int = 0) -> np.ndarray:
    """Bright squares on dark grounds, (n, 3, size, size) bytes."""
    rng = np.random.default_rng(seed)
    images = np.zeros((n, 3, size, size), np.uint8)
    images += rng.integers(0, 80, (n, 3, 1, 1), np.uint8)
    for image in images:
        top, left = rng.integers(0, size // 2, 2)
        image[:, top : top + size // 2, left : left + size // 2] = rng.integers(150, 256, (3, 1, 1))
    return images


@dataclass
class Toy(Recipe):
    """A generator that copies the mean image, with dropout; it records what it is given, and can misbehave."""

    architecture: ClassVar[str] = "dcgan"
    batch: int = 5
    lr: float = 0.01
    stop_at: int = -1
    nan_at: int = -1
    infinite_gradient_at: int = -1
    seen: ClassVar[list[Tensor]] = []

    def networks(self, image: tuple[int, int, int]) -> dict[str, nn.Module]:
        return {"generator": DCGANGenerator(3, [4], image[0]), "noise": nn.Sequential(nn.Dropout(0.5), nn.Linear(1, 1))}

    def optimisers(self, networks: Mapping[str, nn.Module]) -> dict[str, torch.optim.Optimizer]:
        parameters = [value for network in networks.values() for value in network.parameters()]
        return {"both": torch.optim.Adam(parameters, self.lr)}

    def step(self, step: Step) -> Iterator[Update]:
        self.seen.append(step.images)
        if step.number == self.stop_at:
            raise KeyboardInterrupt
        images = step.networks["generator"](step.normal(3, 1, 1))
        loss = (images - step.images).square().mean() + step.networks["noise"](torch.ones(8, 1)).square().mean()
        if step.number == self.nan_at:
            loss = loss * float("nan")
        if step.number == self.infinite_gradient_at:
            loss = loss + (loss - loss.detach()).sqrt()  # 0, with a gradient that is infinite
        yield Update("both", loss, {"loss": loss})

    def samples(self, networks: Networks, step: Step) -> Tensor:
        images: Tensor = networks["generator"](step.normal(3, 1, 1))
        return images

    def files(self, networks: Mapping[str, nn.Module]) -> dict[str, dict[str, Tensor]]:
        return {"model": networks["generator"].state_dict()}


def train(recipe: Recipe, out: Path, *, steps: int = 12, **options: Any) -> Trained:
    data = squares(size=8 if isinstance(recipe, Toy) else 16)
    return cp.train(recipe, data, out=out, steps=steps, device="cpu", **options)


def assert_same(one: Trained, two: Trained) -> None:
    assert list(one.losses) == list(two.losses)
    for name, values in one.losses.items():
        assert values.dtype == np.float32
        assert np.array_equal(values, two.losses[name]), name
