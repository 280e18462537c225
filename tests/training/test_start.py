"""Trainings that begin with the weights of another: every recipe takes back what it files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from counterfactual_probe.adapters.biggan_deep.recipe import BigGANRecipe
from counterfactual_probe.adapters.flow.recipe import FlowRecipe
from torch import Tensor

import counterfactual_probe as cp
from counterfactual_probe.cli import entry as cli
from counterfactual_probe.generator.state.randomness import seed_everything
from counterfactual_probe.training import Recipe
from support.toy_training import AUTOENCODERS, OTHERS, SMALL, Toy, assert_same, small, squares, train

NAMES = sorted({**SMALL, **OTHERS, **AUTOENCODERS})
# What is computed anew when a BigGAN is filed, from iterations that then have gone on.
DERIVED = (".weight_u", ".weight_v", ".running_means", ".running_vars")
Files = dict[str, dict[str, Tensor]]


def recipe_of(name: str) -> tuple[Recipe, int]:
    """A small recipe and the size of its images."""
    if name == "flow":
        return FlowRecipe(width=8, levels=2, batch=5, steps=3), 16
    if name == "biggan":
        pytest.importorskip("pytorch_pretrained_biggan")
        return BigGANRecipe(latent=4, width=4, d_width=4, batch=5, classes=("a", "b")), 32
    return small(name), 16


def made(recipe: Recipe, side: int, seed: int) -> tuple[dict[str, Any], Files]:
    """Networks that have seen ``seed``, and copies of the tensors that are filed of them."""
    with torch.random.fork_rng(devices=[]):
        seed_everything(seed, torch.nn.Module())
        networks = recipe.networks((3, side, side))
    with torch.no_grad():  # what starts at a constant differs too
        for network in networks.values():
            for value in network.parameters():
                value.add_(0.01 * seed)
    filed = recipe.files(networks)
    return networks, {file: {key: value.clone() for key, value in own.items()} for file, own in filed.items()}


@pytest.mark.parametrize("name", [*NAMES, "flow", "biggan"])
def test_networks_take_back_what_is_filed_of_them(name: str) -> None:
    recipe, side = recipe_of(name)
    _, wanted = made(recipe, side, 1)
    networks, other = made(recipe, side, 2)
    differ = [key for file in wanted for key in wanted[file] if not torch.equal(wanted[file][key], other[file][key])]
    assert differ
    recipe.begin(networks, wanted)
    for file, own in recipe.files(networks).items():
        for key, value in own.items():
            if not key.endswith(DERIVED):
                assert torch.allclose(value, wanted[file][key], atol=1e-5), key
    for averaged in ("flow", "biggan"):  # the network in training begins where its average is
        if name == averaged:
            pair = [networks[key].state_dict() for key in networks if key != "discriminator"]
            assert all(torch.equal(pair[0][key], pair[1][key]) for key in pair[0])


@pytest.mark.parametrize("name", ["vae", "began"])
def test_a_training_begins_with_the_weights_of_another(name: str, tmp_path: Path) -> None:
    train(small(name), tmp_path / "first", steps=6)
    train(small(name, lr=1e-12), tmp_path / "second", steps=1, start=tmp_path / "first", seed=1)
    train(small(name, lr=1e-12), tmp_path / "fresh", steps=1, seed=1)
    first, second, fresh = (cp.load(tmp_path / folder) for folder in ("first", "second", "fresh"))
    z = first.sample(4, seed=0)
    assert torch.allclose(first(z), second(z), atol=1e-5)
    assert not torch.allclose(first(z), fresh(z), atol=1e-3)
    card = (tmp_path / "second" / "README.md").read_text().replace("\\", "")
    assert f"Started from the weights of {tmp_path / 'first'}, SHA-256" in card


def test_a_started_training_resumes_only_from_the_same_weights(tmp_path: Path) -> None:
    for seed in (0, 1):
        train(small("vae"), tmp_path / f"first{seed}", steps=2, seed=seed)
    whole = train(small("vae"), tmp_path / "whole", steps=6, start=tmp_path / "first0")
    train(small("vae"), tmp_path / "part", steps=3, start=tmp_path / "first0")
    assert_same(whole, train(small("vae"), tmp_path / "part", steps=6, start=tmp_path / "first0", resume=True))
    for start in (None, tmp_path / "first1"):
        with pytest.raises(cp.ProbeError, match="is of another run: its start is"):
            train(small("vae"), tmp_path / "part", steps=8, start=start, resume=True)


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    train(small("began"), tmp_path / "began", steps=1)
    with pytest.raises(cp.ProbeError, match=r"of another network: .* of model is .*×.* here; give the settings"):
        train(small("began", width=7), tmp_path / "wider", steps=1, start=tmp_path / "began")
    (tmp_path / "began" / "discriminator.safetensors").unlink()
    with pytest.raises(cp.ProbeError, match=r"lack discriminator\.safetensors; give the folder of a whole training"):
        train(small("began"), tmp_path / "half", steps=1, start=tmp_path / "began")
    with pytest.raises(cp.ProbeError, match=r"its files do not hold .*; leave out start, or define its begin\(\)"):
        Toy().begin(*made(Toy(), 8, 1))
    with pytest.raises(cp.ProbeError, match="there is no folder"):
        train(small("vae"), tmp_path / "vae", steps=1, start=tmp_path / "nowhere")
    assert not (tmp_path / "vae" / "config.json").exists()


def test_the_command_starts_from_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    Path("pictures").mkdir()
    for i, pixels in enumerate(squares()):
        Image.fromarray(pixels.transpose(1, 2, 0)).save(f"pictures/{i:02d}.png")
    asked = ["train", "vae", "--data", "pictures", "--steps", "2", "--latent", "4", "--width", "6", "--batch", "5"]
    assert cli.main([*asked, "--out", "one"]) == 0
    assert cli.main([*asked, "--start", "./one", "--out", "two"]) == 0
    assert "--start ./one" in Path("two/README.md").read_text()
