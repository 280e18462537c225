"""Classifiers of toy images, and what is asked of them, for the tests of robustness."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

import counterfactual_probe as cp
from support import twins
from support.toys import PLAIN

N = 7
OWN = cp.Preprocessing((8, 8), mean=(0.5,) * 3, std=(0.5,) * 3)
# Ragged on purpose: a layer without a module of the other, and one over two layers under a name of its own.
UNITS: dict[str, dict[str, Any]] = {
    "main.2": {"one": [0, 3, 5], "two": [1, 2]},
    "both": {"two": {"main.2": [0, 1], "main.6": [0, 1, 2]}},
    "main.6": {"three": [0, 1], "one": {"main.6": [2]}},
}
FLAT = [
    (0, 0, {"main.2": [0, 3, 5]}),
    (0, 1, {"main.2": [1, 2]}),
    (1, 1, {"main.2": [0, 1], "main.6": [0, 1, 2]}),
    (2, 0, {"main.6": [2]}),
    (2, 2, {"main.6": [0, 1]}),
]


@cache
def spread() -> tuple[Tensor, float]:
    """Mean of the toy's images, which differ little, and by how much they differ."""
    inputs = unit(torch.cat([twins.images(PLAIN, z) for z in (Z1, Z2)])).flatten(1)
    return inputs.mean(0), float(inputs.std(0).mean())


def linear(classes: int, seed: int) -> nn.Module:
    """Logits that differ enough between images for every answer to occur."""
    rng = torch.Generator().manual_seed(seed)
    last = nn.Linear(192, classes).double()
    mean, deviation = spread()
    with torch.no_grad():
        last.weight.copy_(torch.randn(classes, 192, generator=rng, dtype=torch.float64) / deviation / 10)
        last.bias.copy_(-last.weight @ mean)
    return nn.Sequential(nn.Flatten(), last)


def classifiers() -> list[cp.Classifier]:
    return [
        cp.Classifier(linear(4, 1), OWN, class_names=["day", "night", "dawn", "dusk"], name="few"),
        cp.Classifier(linear(14, 2), OWN, class_names=[*"abcdefghijkl", "night, nightfall", "day"], name="many"),
    ]


CLASS_MAP = {"day": ["day", "dawn"], "night": "night", "many": {"day": "day", "night": ["night", "a", "b", "c", "d"]}}
Z1, Z2 = (PLAIN.sampler(N, torch.Generator().manual_seed(seed)) for seed in (0, 1))


def score(generator: cp.GeneratorAdapter, **options: Any) -> cp.Robustness:
    given = {"units_by_layer": UNITS, "classes": ("day", "night"), "class_map": CLASS_MAP, "shown": 3} | options
    probe = cp.RobustnessProbe(generator, given.pop("classifiers", None) or classifiers())
    return probe.score(given.pop("z1", Z1), given.pop("z2", Z2), **given)


def unit(images: Tensor) -> Tensor:
    """−1…1 to 0…1 at 8×8 pixels: the toy's own size is 16×16."""
    return OWN(((images + 1) / 2).clamp(0, 1))


def arrays(found: cp.Robustness) -> list[Any]:
    return [found.answers, found.hits, found.hits5, found.shown_at, found.original_hits]


def close(found: cp.Robustness) -> list[Any]:
    return [found.confidence, found.probabilities, found.entropies, found.distances, found.disagreement]
