"""How structural autoencoders and their relatives are trained: literal losses, a few steps of each, what is kept."""

from __future__ import annotations

from math import exp, log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from counterfactual_probe.adapters.autoencoder import AutoencoderAdapter
from counterfactual_probe.adapters.autoencoder.recipe import (
    AdaAERecipe,
    AERecipe,
    SAERecipe,
    VariationalRecipe,
    VLAERecipe,
    WAERecipe,
)
from torch import Tensor
from torch.distributions import Normal, kl_divergence

import counterfactual_probe as cp
from counterfactual_probe import autoencoders as ae
from counterfactual_probe.autoencoders import losses
from counterfactual_probe.cli import entry as cli
from counterfactual_probe.data import Scene
from counterfactual_probe.distributed.ranks import Ranks
from counterfactual_probe.training import Networks, Step, trainable
from support.toy_training import assert_same, squares, train

SMALL: dict[str, Any] = {"latent": 4, "width": 8, "convolutions": 4, "batch": 5}
RECIPES: dict[str, tuple[Any, dict[str, Any], type[ae.Autoencoder]]] = {
    "sae": (SAERecipe, {"variables": 2}, ae.StructuralAutoencoder),
    "adaae": (AdaAERecipe, {"variables": 2}, ae.AdaptiveAutoencoder),
    "ae": (AERecipe, {}, ae.Autoencoder),
    "wae": (WAERecipe, {}, ae.Autoencoder),
    "betavae": (VariationalRecipe, {}, ae.VariationalAutoencoder),
    "vlae": (VLAERecipe, {"variables": 2, "width": 32}, ae.LadderAutoencoder),
}


def small(name: str, **changes: Any) -> Any:
    recipe, settings, _ = RECIPES[name]
    return recipe(**{**SMALL, **settings, **changes})


def drawn(n: int, seed: int) -> Tensor:
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(seed)).double()


# --- literal losses -------------------------------------------------------------------------------


def test_cross_entropy_is_summed_over_pixels() -> None:
    logits, images = drawn(3, 0).reshape(3, 1, 2, 2), drawn(3, 1).sigmoid().reshape(3, 1, 2, 2)
    expected = 0.0
    for x, t in zip(logits.flatten().tolist(), images.flatten().tolist(), strict=True):
        p = 1 / (1 + exp(-x))
        expected -= t * log(p) + (1 - t) * log(1 - p)
    found = losses.cross_entropy(logits, images)
    assert float(found) == pytest.approx(expected / 3, rel=1e-6)
    assert found.dtype == torch.float32  # whatever precision the networks run in


def test_the_divergences() -> None:
    mean, log_deviation = drawn(5, 2), drawn(5, 3) * 0.5
    right = kl_divergence(Normal(mean, log_deviation.exp()), Normal(0.0, 1.0)).sum(1).mean()
    assert losses.divergence(mean, log_deviation) == pytest.approx(float(right), abs=1e-12)
    s = log_deviation.exp()
    authors = ((mean**2 - s.log() + s - 1) / 2).sum(1).mean()
    assert losses.authors_divergence(mean, log_deviation) == pytest.approx(float(authors), abs=1e-12)
    assert abs(right - authors) > 0.05
    zero = torch.zeros(2, 4)
    assert losses.divergence(zero, zero) == losses.authors_divergence(zero, zero) == 0
    pulls = []
    for loss in (losses.divergence, losses.authors_divergence):
        away = torch.full((1, 1), 0.01, requires_grad=True)
        loss(torch.zeros(1, 1), away).backward()
        assert away.grad is not None
        pulls.append(float(away.grad))
    assert pulls[1] < 0.5 * pulls[0]  # of half the pull at least


def test_the_discrepancy() -> None:
    codes, prior = drawn(6, 4) * 2, drawn(5, 5)

    def kernel(a: Tensor, b: Tensor) -> float:
        return 4 / (4 + float(((a - b) ** 2).sum()))

    def within(rows: Tensor) -> float:
        pairs = [kernel(a, b) for i, a in enumerate(rows) for j, b in enumerate(rows) if i != j]
        return sum(pairs) / len(pairs)

    across = sum(kernel(a, b) for a in codes for b in prior) / 30
    assert losses.discrepancy(codes, prior) == pytest.approx(within(codes) + within(prior) - 2 * across, abs=1e-12)
    one, two = (torch.randn(500, 4, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert abs(losses.discrepancy(one, two)) < 0.01 < losses.discrepancy(one * 2, two)
    same = torch.zeros(3, 4, requires_grad=True)
    losses.discrepancy(same, prior.float()).backward()
    assert same.grad is not None
    assert torch.isfinite(same.grad).all()


# --- steps ----------------------------------------------------------------------------------------


def one_step(recipe: AERecipe) -> tuple[dict[str, Tensor], Any, Tensor, Step]:
    """What a step shows; networks, images in 0…1, and the same step again, for its random numbers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        made = recipe.networks((3, 16, 16))
    networks = Networks(made, made)
    images = torch.from_numpy(squares(5)).float() / 127.5 - 1
    (update,) = recipe.step(Step(3, networks, images, seed=0, ranks=Ranks()))
    assert update.loss is update.shown["loss"]
    return dict(update.shown), networks, (images + 1) / 2, Step(3, networks, images, seed=0, ranks=Ranks())


@torch.no_grad()
def entropy(networks: Any, codes: Tensor, images: Tensor) -> float:
    made = networks["decoder"](codes)
    return float(-(images * made.log() + (1 - images) * (1 - made).log()).sum() / len(images))


@pytest.mark.parametrize("name", ["sae", "adaae", "ae"])
def test_unregularised_models_have_cross_entropy_alone(name: str) -> None:
    recipe = small(name)
    shown, networks, images, _ = one_step(recipe)
    codes = networks["encoder"](images)
    assert float(shown["loss"].detach()) == pytest.approx(entropy(networks, codes, images), rel=1e-5)
    assert torch.equal(recipe.state["codes"], codes)


@pytest.mark.parametrize(("per_batch", "weight"), [(True, 10 / 5), (False, 10.0)])
def test_the_loss_of_a_wae(per_batch: bool, weight: float) -> None:
    shown, networks, images, again = one_step(small("wae", per_batch=per_batch))
    codes = networks["encoder"](images)
    expected = entropy(networks, codes, images)
    expected += weight * float(losses.discrepancy(codes, again.normal(4)).detach())
    assert float(shown["loss"].detach()) == pytest.approx(expected, rel=1e-5)
    assert weight * abs(float(shown["discrepancy"].detach())) > 0.05  # of weight in the sum


@pytest.mark.parametrize("name", ["betavae", "vlae"])
@pytest.mark.parametrize("kl", ["gaussian", "authors"])
def test_the_loss_of_variational_models(name: str, kl: str) -> None:
    recipe = small(name, beta=50.0, kl=kl)
    shown, networks, images, again = one_step(recipe)
    mean, log_deviation = networks["encoder"](images).chunk(2, 1)
    codes = mean + log_deviation.exp() * again.normal(4)
    loss = losses.divergence if kl == "gaussian" else losses.authors_divergence
    value = float(loss(mean, log_deviation).detach())
    assert float(shown["loss"].detach()) == pytest.approx(entropy(networks, codes, images) + 50 * value, rel=1e-5)
    assert float(shown["kl"].detach()) == pytest.approx(value, rel=1e-5)
    assert 50 * value > 0.1
    assert torch.equal(recipe.state["codes"], mean)


@pytest.mark.parametrize(("anneal", "share"), [(0, 1.0), (3, 1.0), (8, 0.5)])
def test_the_weight_of_the_kl_rises(anneal: int, share: float) -> None:
    """The step of these tests is the fourth."""
    shown, networks, images, again = one_step(small("betavae", beta=50.0, anneal=anneal))
    mean, log_deviation = networks["encoder"](images).chunk(2, 1)
    expected = entropy(networks, mean + log_deviation.exp() * again.normal(4), images)
    expected += share * 50 * float(losses.divergence(mean, log_deviation).detach())
    assert float(shown["loss"].detach()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["betavae", "vlae"])
def test_the_posterior_starts_as_narrow_as_asked(name: str) -> None:
    found = {}
    for deviation in (1.0, 0.05):
        _, networks, images, _ = one_step(small(name, deviation=deviation))
        found[deviation] = networks["encoder"](images).detach().chunk(2, 1)
    assert torch.equal(found[0.05][0], found[1.0][0]), "means are as they were"
    torch.testing.assert_close(found[0.05][1], found[1.0][1] + log(0.05))


def test_the_defaults_are_the_papers() -> None:
    for name, (recipe, _, _) in RECIPES.items():
        entry = trainable(name)
        assert entry.recipe is recipe
        assert (entry.data, entry.size, entry.steps) == ("scene", 64, 100_000)
        settings = entry.make({}).settings()
        wanted = {"batch": 128, "lr": 5e-4, "latent": 12, "width": 64, "convolutions": 12}
        assert wanted.items() <= settings.items()
        assert settings.get("variables", 12) == 12
    networks = trainable("sae").make({}).networks((3, 64, 64))
    assert sum(value.numel() for part in networks.values() for value in part.parameters()) == 1_221_967
    (group,) = trainable("sae").make({}).optimisers(networks)["autoencoder"].param_groups
    assert (group["lr"], group["betas"], group["weight_decay"]) == (5e-4, (0.9, 0.999), 0)


# --- runs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECIPES)
def test_a_trained_model_loads_and_hybridises(name: str, tmp_path: Path) -> None:
    trained = train(small(name), tmp_path / "out", steps=8)
    gen = cp.load(trained.folder)
    assert isinstance(gen, AutoencoderAdapter)
    assert type(gen.module) is RECIPES[name][2]
    assert gen.module.codes.shape == (5, 4)
    assert (tmp_path / "out" / "reconstructions-0002.png").exists()
    z1, z2 = gen.sample(2, seed=0), gen.sample(2, seed=1)
    hybrids = cp.Hybridizer(gen, "decoder.block2").hybridize(z1, z2, units=[[0, 1], [2]])
    assert hybrids.images.shape == (2, 2, 3, 16, 16)
    assert (hybrids.images[0] != hybrids.base).any()
    assert 0 <= hybrids.images.min() < hybrids.images.max() <= 1
    codes = gen.encode(torch.from_numpy(squares(6)).float() / 255)
    assert ae.hybrid_sample(codes, 3).shape == (3, 4)


def test_a_run_that_was_killed_ends_as_one_that_was_not(tmp_path: Path) -> None:
    whole = train(small("sae"), tmp_path / "whole", steps=9)
    train(small("sae"), tmp_path / "parts", steps=4)
    parts = train(small("sae"), tmp_path / "parts", steps=9, resume=True)
    assert_same(whole, parts)
    one, two = (cp.load(run.folder).module.state_dict() for run in (whole, parts))
    assert all(torch.equal(value, two[key]) for key, value in one.items())


def test_codes_of_a_trained_model_are_scored(tmp_path: Path) -> None:
    scene = Scene(size=16)
    labels = scene.sample(360, seed=1)
    recipe = small("sae", width=16, batch=20, lr=3e-3, latent=6, variables=6, convolutions=6)
    trained = cp.train(recipe, scene.images(400).pixels, out=tmp_path, steps=20, device="cpu")
    assert np.isfinite(trained.losses["loss"]).all()
    gen = cp.load(tmp_path)
    assert isinstance(gen, AutoencoderAdapter)
    codes = gen.encode(scene.render(labels).float() / 255)
    hues = labels[:, :2] // 5  # two classes of each take a fifth of the time of ten
    found = cp.metrics.dci(codes[:240], hues[:240], test=(codes[240:], hues[240:]))
    assert (found.provenance["rows"], found.provenance["test_rows"]) == (240, 120)
    assert found.matrix.shape == (6, 2)
    assert 0 <= found.score <= 1


def test_the_command_trains_on_the_scene(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["--latent", "4", "--width", "8", "--batch", "5", "--set", "convolutions=4", "--set", "variables=2"]
    command = ["train", "sae", "--data", "scene", "--images", "10", "--size", "16", "--steps", "2", "--device", "cpu"]
    assert cli.main([*command, *settings, "--out", str(tmp_path), "--no-progress"]) == 0
    assert (
        "Training images: 10 renders of the procedural scene (seed 0), 3×16×16." in (tmp_path / "README.md").read_text()
    )
    assert cli.main(["train", "ae", "--beta", "2", "--out", str(tmp_path / "b"), "--images", "5", "--size", "8"]) == 2
    assert "ae has no setting 'beta', which would be ignored" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: small("betavae", kl="printed"), r"kl is 'printed'; give one of gaussian, authors"),
        (lambda: small("betavae", beta=-1), r"beta is -1; give a number above 0"),
        (lambda: small("betavae", deviation=0), r"deviation is 0; give a number above 0"),
        (lambda: small("betavae", anneal=0.5), r"anneal is 0\.5; give an integer of at least 0"),
        (lambda: small("wae", mmd=0), r"mmd is 0; give a number above 0"),
        (lambda: small("wae", batch=1), r"batch is 1; the discrepancy compares codes of a batch"),
        (lambda: small("ae", latent=0), r"latent is 0; give an integer of at least 1"),
        (lambda: small("ae", warmup=-1), r"warmup is -1; give an integer of at least 0"),
        (lambda: small("ae", decay=-1), r"decay is -1; give an integer of at least 0"),
        (
            lambda: small("sae", variables=3).networks((3, 16, 16)),
            r"a latent of 4 dimensions cannot be split",
        ),
        (lambda: small("ae").networks((3, 20, 20)), r"images are 20×20; give a size of 4, 8, 16"),
    ],
)
def test_settings_that_do_not_fit(make: Any, message: str) -> None:
    with pytest.raises(cp.ProbeError, match=message):
        make()
