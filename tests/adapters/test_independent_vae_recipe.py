"""The VAE that alternates its loss with the independence of its filters: which update moves what, and by which loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from counterfactual_probe.adapters.vae.independent_recipe import IndependentVAERecipe
from counterfactual_probe.adapters.vae.recipe import VAERecipe
from torch import Tensor, nn

import counterfactual_probe as cp
from counterfactual_probe.data.order import epoch_order
from counterfactual_probe.distributed.ranks import Ranks
from counterfactual_probe.generator.latents import stream_seed
from counterfactual_probe.generator.state.randomness import seed_everything
from counterfactual_probe.training import Networks, Step, Update, trainable
from counterfactual_probe.training.trainer import START
from support.spectral import twins
from support.toy_training import assert_same, small, squares, train

SETTINGS: dict[str, Any] = {"latent": 4, "width": 6, "batch": 5}
# Of 32×32 images from 4×4: deconvolutions that read 4×4, 8×8 and 16×16.
TURNS = ["image.0", "level3.0"]


def prepared(recipe: VAERecipe, number: int = 0) -> tuple[dict[str, nn.Module], Step]:
    torch.manual_seed(0)
    made = recipe.networks((3, 32, 32))
    images = torch.from_numpy(squares(5, 32)).float() / 127.5 - 1
    return made, Step(number, Networks(made, made), images, seed=0, ranks=Ranks())


def read_by(decoder: Any, layer: str, codes: Tensor) -> Tensor:
    """What a deconvolution reads, level after level."""
    x = codes
    for level in decoder.levels[: {"level3.0": 2, "image.0": 3}[layer]]:
        x = decoder.get_submodule(level)(x)
    return x


@pytest.mark.parametrize("form", ["printed", "scalar"])
@pytest.mark.parametrize("number", [0, 1, 4])
def test_after_the_vae_each_layer_has_its_turn(number: int, form: Any) -> None:
    recipe = IndependentVAERecipe(**SETTINGS, form=form)
    made, step = prepared(recipe, number)
    codes: list[Tensor] = []
    handle = made["decoder"].register_forward_pre_hook(lambda _, args: codes.append(args[0].detach()))
    first, second = list(recipe.step(step))
    handle.remove()
    assert (first.optimiser, second.optimiser) == ("vae", "filters")
    assert list(second.shown) == [f"independence {layer}" for layer in TURNS]
    turn = TURNS[number % 2]
    for layer in TURNS:
        weight = made["decoder"].get_submodule(layer).weight.detach()
        maps = read_by(made["decoder"], layer, codes[0]).detach()
        expected = twins.loss(maps, weight, 2, form) / (weight.shape[0] * weight.shape[1])
        assert float(second.shown[f"independence {layer}"].detach()) == pytest.approx(expected, rel=1e-3)
    assert float(second.loss.detach()) == float(second.shown[f"independence {turn}"].detach())
    second.loss.backward()
    moved = [f"{n}.{key}" for n, module in made.items() for key, p in module.named_parameters() if p.grad is not None]
    assert moved == [f"decoder.{turn}.weight"]


def test_the_vaes_own_loss_is_that_of_a_vae() -> None:
    plain, own = VAERecipe(**SETTINGS), IndependentVAERecipe(**SETTINGS)
    values = []
    for recipe in (plain, own):
        _, step = prepared(recipe)
        update: Update = next(iter(recipe.step(step)))
        values.append(float(update.loss.detach()))
    assert values[0] == values[1]


def test_filters_have_an_optimiser_of_their_own() -> None:
    recipe = IndependentVAERecipe(**SETTINGS, lr=0.01, independence=0.5, layers=["image.0"])
    made, _ = prepared(recipe)
    found = recipe.optimisers(made)
    assert list(found) == ["vae", "filters"]
    (group,) = found["filters"].param_groups
    assert group["lr"] == 0.005
    assert group["betas"][0] == 0.5
    assert [id(value) for value in group["params"]] == [id(made["decoder"].image[0].weight)]  # type: ignore[index]
    assert len(found["vae"].param_groups[0]["params"]) == sum(len(list(each.parameters())) for each in made.values())


def test_hooks_go_when_a_step_ends_or_breaks() -> None:
    recipe = IndependentVAERecipe(**SETTINGS)
    made, step = prepared(recipe)

    def hooks() -> int:
        return sum(len(part._forward_pre_hooks) for part in made["decoder"].modules())

    updates = recipe.step(step)
    next(updates)
    assert hooks() == 3
    updates.close()  # type: ignore[attr-defined]
    assert hooks() == 0
    list(recipe.step(step))
    assert hooks() == 0


def plain_loop(steps: int, rate: float) -> list[tuple[float, float]]:
    """The alternation in plain torch: of 16×16 images one layer has all turns."""
    recipe = IndependentVAERecipe(**SETTINGS)
    with torch.random.fork_rng(devices=[]):
        seed_everything(stream_seed(0, START, 0), nn.Module())
        networks: dict[str, Any] = recipe.networks((3, 16, 16))
    decoder, filters = networks["decoder"], networks["decoder"].image[0].weight
    everything = [value for network in networks.values() for value in network.parameters()]
    adams = torch.optim.Adam(everything, 0.001, betas=(0.5, 0.999)), torch.optim.Adam([filters], rate, (0.5, 0.999))
    pixels, found = torch.from_numpy(squares()).float() / 127.5 - 1, []
    for number in range(steps):
        epoch, position = divmod(number, len(pixels) // 5)
        images = pixels[epoch_order(len(pixels), seed=0, epoch=epoch)[position * 5 :][:5]]
        draw = Step(number, Networks(networks, networks), images, seed=0, ranks=Ranks())
        mean, log_variance = networks["encoder"](images)
        maps = decoder.level2(decoder.level1(mean + torch.exp(log_variance / 2) * draw.normal(4)))
        kl = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(1).mean()
        own = (decoder.image(maps) - images).square().mean() + 0.0005 * kl
        losses = []
        for adam, loss in (
            (adams[0], lambda own=own: own),
            # The filters as the VAE's step has left them, and the maps of before.
            (
                adams[1],
                lambda maps=maps: cp.spectral_independence_loss(maps.detach(), filters) / filters[..., 0, 0].numel(),
            ),
        ):
            adam.zero_grad()
            value = loss()
            value.backward()
            adam.step()
            losses.append(value.item())
        found.append((losses[0], losses[1]))
    return found


def test_the_losses_are_those_of_a_plain_loop(tmp_path: Path) -> None:
    trained = train(IndependentVAERecipe(**SETTINGS, independence=3.0), tmp_path, steps=8)
    found = np.stack([trained.losses["loss"], trained.losses["independence image.0"]], 1)
    np.testing.assert_allclose(found, plain_loop(8, 0.003), rtol=2e-4)
    assert not np.allclose(found[2:], plain_loop(8, 0.0003)[2:], rtol=1e-3)


def test_a_run_can_be_made_longer(tmp_path: Path) -> None:
    whole = train(small("sdrvae"), tmp_path / "whole", steps=9)
    train(small("sdrvae"), tmp_path / "part", steps=4)
    assert_same(whole, train(small("sdrvae"), tmp_path / "part", steps=9, resume=True))


def test_filters_are_moved_more_by_more_of_it(tmp_path: Path) -> None:
    data = {"none": VAERecipe(**SETTINGS)} | {
        f"{rate:g}": IndependentVAERecipe(**SETTINGS, independence=rate, layers=["image.0"]) for rate in (1e-8, 1.0)
    }
    weights = {name: train(recipe, tmp_path / name, steps=4).load().module for name, recipe in data.items()}
    last = {name: module.decoder.image[0].weight.detach() for name, module in weights.items()}
    assert torch.allclose(last["1e-08"], last["none"], atol=1e-5)
    assert float((last["1"] - last["none"]).abs().max()) > 1e-3
    first = {name: module.decoder.level2[0].weight.detach() for name, module in weights.items()}
    assert torch.allclose(first["1e-08"], first["none"], atol=1e-5)


def test_it_is_trained_by_name(tmp_path: Path) -> None:
    trained = cp.train(
        "sdrvae", squares(), out=tmp_path, steps=2, device="cpu", form="scalar", layers=["image.0"], **SETTINGS
    )
    assert list(trained.losses)[-2:] == ["independence image.0", "gradient filters"]
    assert np.isfinite(trained.losses["independence image.0"]).all()
    assert trained.load().partner is not None
    assert "scalar" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"independence": 0}, "independence is 0; give a number above 0"),
        ({"form": "bart"}, "form is 'bart'; give one of 'printed', 'bartlett', 'scalar'"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(cp.ProbeError, match=sentence):
        trainable("sdrvae").make(settings)


def test_a_layer_that_the_decoder_lacks(tmp_path: Path) -> None:
    with pytest.raises(cp.ProbeError, match=r"layer 'level9\.0' is not in this VAEDecoder; nearest: '"):
        train(IndependentVAERecipe(**SETTINGS, layers=["level9.0"]), tmp_path, steps=1)
