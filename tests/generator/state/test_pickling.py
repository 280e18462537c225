"""Generators, what holds one, and results go to other processes and come back; what cannot says which part and why."""

from __future__ import annotations

import copy
import importlib
import multiprocessing
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import counterfactual_probe as cp
from counterfactual_probe.generator import latents as lt
from counterfactual_probe.generator.latents import standard_normal
from support import saved_results
from support.toys import PLAIN

OFFLINE = [name for name in cp.available() if not name.startswith("biggan")]
WAYS: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda thing: pickle.loads(pickle.dumps(thing)),
    "deepcopy": copy.deepcopy,
}
if find_spec("cloudpickle") is not None:  # joblib's way to its workers
    WAYS["cloudpickle"] = lambda thing: pickle.loads(importlib.import_module("cloudpickle").dumps(thing))


@cache
def small() -> cp.GeneratorAdapter:
    return cp.load("dcgan-cifar10")


@cache
def classifier() -> cp.Classifier:
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 3))
    return cp.Classifier(module, cp.Preprocessing((8, 8)), class_names=["a", "b", "c"])


def prints(thing: Any) -> Any:
    """A value that is equal for equal results."""
    if isinstance(thing, Tensor):
        return lt.fingerprint(thing)
    if isinstance(thing, np.ndarray):
        return thing.dtype, thing.tobytes()
    if isinstance(thing, (list, tuple)):
        return [prints(item) for item in thing]
    if isinstance(thing, dict):
        return {key: prints(value) for key, value in thing.items()}
    if hasattr(thing, "__dict__") and type(thing).__module__.startswith("counterfactual_probe"):
        return type(thing), prints(vars(thing))
    return thing


@pytest.mark.parametrize("name", OFFLINE)
def test_each_pretrained_generator_goes_through_a_pickle(name: str) -> None:
    gen = cp.load(name)
    found = WAYS["pickle"](gen)
    z = found.sample(2, seed=4)
    assert prints(z) == prints(gen.sample(2, seed=4))
    assert torch.equal(found(z), gen(z))
    assert list(found.layers) == list(gen.layers)
    assert found.provenance() == gen.provenance()
    partner = gen.partner
    assert (found.partner is None) == (partner is None)
    if partner is not None:
        assert prints(dict(found.partner.state_dict())) == prints(dict(partner.state_dict()))


HOLDERS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "Hybridizer": (
        lambda: cp.Hybridizer(small(), "main.2"),
        lambda it: it.hybridize(small().sample(2), small().sample(2, seed=1), units=[[0], [1, 2]]).images,
    ),
    "InfluenceMap": (
        lambda: cp.InfluenceMap(small(), "main.2"),
        lambda it: it.attribute(n_pairs=2, units=[[0], [1]]).maps,
    ),
    "StretchTest": (lambda: cp.StretchTest(small(), "main.2"), lambda it: it.measure(n_images=2).mse),
    "SpectralDependency": (lambda: cp.SpectralDependency(small()), lambda it: it.measure("main.3", "main.6").ratio),
    "Classifier": (classifier, lambda it: it.logits(torch.linspace(0, 1, 192).view(1, 3, 8, 8))),
    "RobustnessProbe": (
        lambda: cp.RobustnessProbe(small(), [classifier()]),
        lambda it: it.classifiers[0].logits(torch.linspace(0, 1, 192).view(1, 3, 8, 8)),
    ),
    "FidelityTest": (
        lambda: cp.FidelityTest(small(), "main.2", features=classifier()),
        lambda it: it.measure([[0]], n_images=4, resamples=0).distances,
    ),
    "ModuleFinder": (
        lambda: cp.ModuleFinder(2).fit(cp.InfluenceMap(small(), "main.2").attribute(n_pairs=4, units=[[0], [1], [2]])),
        lambda it: [it.labels_, it.templates_, it.modules_],
    ),
    "unfitted ModuleFinder": (lambda: cp.ModuleFinder(3, method="kmeans"), lambda it: it.n_modules),
}


@pytest.mark.filterwarnings("ignore::counterfactual_probe.fidelity.frechet.FewSamples")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("holder", HOLDERS)
def test_what_holds_a_generator_can_be_copied(holder: str, way: str) -> None:
    make, use = HOLDERS[holder]
    made = make()
    found = WAYS[way](made)
    assert type(found) is type(made)
    assert prints(use(found)) == prints(use(made))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", saved_results.results())
def test_every_result_can_be_copied(name: str, way: str) -> None:
    expected = saved_results.results()[name]
    assert prints(WAYS[way](expected)) == prints(expected)


def test_a_copy_has_a_lock_and_a_module_of_its_own() -> None:
    gen = small()
    with gen.session():
        found = WAYS["pickle"](gen)
    assert found.module is not gen.module
    assert found.submodules["main.2"] is found.module.get_submodule("main.2")
    with gen.session(), ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        # While the parent holds it.
        sent = pool.submit(cp.InfluenceMap(gen, "main.2").attribute, n_pairs=2, units=[[0], [1]])
        maps = sent.result(120)
    assert torch.equal(maps.maps, cp.InfluenceMap(gen, "main.2").attribute(n_pairs=2, units=[[0], [1]]).maps)


# --- what cannot ----------------------------------------------------------------------------------------


def by_name(output: Any) -> Any:
    return output


def test_a_users_lambda_is_named_with_a_cure() -> None:
    class Inner(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return z.expand(-1, 3, 4, 4)

    sampler = partial(standard_normal, size=(3, 1, 1))
    plain = nn.ConvTranspose2d(3, 3, 4)
    cases = {
        "sample_latents of 'mine'": cp.wrap(
            nn.Sequential(plain), lambda n, rng: torch.randn(n, 3, 1, 1, generator=rng), name="mine"
        ),
        "image of 'mine'": cp.wrap(nn.Sequential(plain), sampler, image=lambda output: output, name="mine"),
        "module of 'mine'": cp.wrap(nn.Sequential(plain, Inner()), sampler, name="mine", layers="0"),
        "features of 'mine'": cp.Classifier(
            nn.Sequential(nn.Flatten(), nn.Linear(192, 2)),
            cp.Preprocessing((8, 8)),
            name="mine",
            features=lambda images: images.flatten(1),
        ),
    }
    for what, thing in cases.items():
        for holding in (thing, {"inside": [thing]}):
            with pytest.raises(
                cp.ProbeError, match=f"{what} cannot be pickled .*define its function or class by a name"
            ):
                pickle.dumps(holding)
        copied = [make(thing) for way, make in WAYS.items() if way != "pickle"]
        assert copied
        assert all(type(found) is type(thing) for found in copied)
    pickle.dumps(cp.wrap(nn.Sequential(plain), sampler, image=by_name))


def test_a_copy_of_a_toy_gives_the_same_hybrids() -> None:
    gen = PLAIN.generator()
    found = copy.deepcopy(gen)
    z1, z2 = gen.sample(2), gen.sample(2, seed=1)
    one, two = (cp.Hybridizer(it, "main.2").hybridize(z1, z2).images for it in (gen, found))
    assert torch.equal(one, two)
