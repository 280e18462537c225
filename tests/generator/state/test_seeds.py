"""Every place that takes a seed takes any whole number from 0 on, and refuses others with a sentence."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from counterfactual_probe.adapters.biggan_deep import random_biggan_deep

import counterfactual_probe as cp
from counterfactual_probe.autoencoders.sampling import hybrid_sample, prior_sample
from counterfactual_probe.testing import check_adapter
from counterfactual_probe.testing.model1 import random_supports
from support.toy_training import small, train
from support.toys import PLAIN

LAYER = "main.2"


@cache
def gen() -> cp.GeneratorAdapter:
    return PLAIN.generator()


@cache
def maps() -> cp.InfluenceMaps:
    return cp.InfluenceMap(gen(), LAYER).attribute(n_pairs=8, blocks=4)


@cache
def table() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    factors = rng.integers(0, 3, (60, 2))
    return factors + rng.standard_normal((60, 2)), factors


DOORS: dict[str, Callable[[int], Any]] = {
    "sample": lambda seed: gen().sample(2, seed=seed),
    "call": lambda seed: gen()(gen().sample(2), seed=seed),
    "hybridize": lambda seed: cp.Hybridizer(gen(), LAYER).hybridize(gen().sample(2), gen().sample(2), seed=seed),
    "intervene": lambda seed: cp.Hybridizer(gen(), LAYER).intervene(gen().sample(2), value="mean", seed=seed),
    "attribute": lambda seed: cp.InfluenceMap(gen(), LAYER).attribute(n_pairs=2, seed=seed, components=2),
    "growing": lambda seed: list(cp.InfluenceMap(gen(), LAYER).growing(8, blocks=2, seed=seed)),
    "stretch": lambda seed: cp.StretchTest(gen(), LAYER).measure(n_images=2, seed=seed),
    "finder": lambda seed: (
        cp.ModuleFinder(n_modules=2, seed=seed).fit(maps()).stability(maps(), n_modules=[2], repetitions=2)
    ),
    "k-means": lambda seed: cp.ModuleFinder(n_modules=2, method="kmeans", seed=seed).fit(maps()).modules_,
    "quality": lambda seed: (
        cp.ModuleFinder(n_modules=2)
        .fit(maps())
        .quality(cp.InfluenceMap(gen(), LAYER), n_pairs=2, controls=1, seed=seed)
    ),
    "filters": lambda seed: cp.SpectralDependency(gen()).remove_filters(
        "main.0", "main.4", gen().sample(1), draws=1, seed=seed
    ),
    "model 1": lambda seed: random_supports(seed=seed),
    "hybrid codes": lambda seed: hybrid_sample(torch.rand(5, 4), 2, seed=seed),
    "prior codes": lambda seed: prior_sample(2, 4, seed=seed),
    "biggan": lambda seed: random_biggan_deep("small", seed=seed),
    "kit": lambda seed: check_adapter(gen(), seed=seed, layers=[LAYER], raise_on_failure=False),
    "dci": lambda seed: cp.metrics.dci(*table(), seed=seed),
    "sap": lambda seed: cp.metrics.sap(*table(), seed=seed),
    "mig": lambda seed: cp.metrics.mig(*table(), seed=seed),
    "irs": lambda seed: cp.metrics.irs(*table(), seed=seed),
    "modularity": lambda seed: cp.metrics.modularity(*table(), seed=seed),
    "explicitness": lambda seed: cp.metrics.explicitness(*table(), seed=seed),
}


def test_training_takes_any_seed(tmp_path: Path) -> None:
    for seed in (2**32, 2**64 + 1):
        train(small("vae"), tmp_path / str(seed), steps=2, seed=seed)
    with pytest.raises(cp.ProbeError, match=r"the seed is -1; give an integer of at least 0"):
        train(small("vae"), tmp_path / "negative", steps=2, seed=-1)


@pytest.mark.parametrize("door", DOORS)
def test_seeds_above_32_and_64_bits_work_and_negative_ones_are_refused(door: str) -> None:
    for seed in (2**32, 2**64 + 1):
        DOORS[door](seed)
    for wrong in (-1, 1.5):
        with pytest.raises(cp.ProbeError, match=r"the seed is .*; give an integer of at least 0"):
            DOORS[door](wrong)  # type: ignore[arg-type]
