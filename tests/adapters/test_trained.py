"""Generators that ship: complete, unaltered, small enough, with their partners, and trained."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from counterfactual_probe.adapters.dcgan import DCGANDiscriminator, DCGANGenerator
from counterfactual_probe.adapters.flow import Flow
from torch import Tensor
from torch.nn import functional as F

import counterfactual_probe as cp
from counterfactual_probe.adapters import trained
from counterfactual_probe.registry import folders
from counterfactual_probe.training import trainable
from support.toys import seeded

NAMES = sorted(path.name for path in trained.FOLDER.iterdir() if path.is_dir())
FACES = ["vae-faces", "vae-faces-sharp", "began-faces", "dcgan-faces-small", "flow-faces"]
CIFAR = ["vae-cifar10", "dcgan-cifar10"]
ALONE = ["flow-faces"]  # trained without another network


def test_all_are_here_and_fit() -> None:
    assert sorted([*FACES, *CIFAR]) == NAMES
    files = [path for path in trained.FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 20e6
    for path in files:
        if path.suffix == ".safetensors":
            kernels = [value for value in safetensors.torch.load_file(path).values() if value.dim() > 1]
            assert {value.dtype for value in kernels} == {torch.float16}, path


@pytest.mark.parametrize("name", NAMES)
def test_it_loads_with_its_partner(name: str) -> None:
    entry, recipe = cp.pretrained(name), trainable(name)
    gen = cp.load(name)
    settings = recipe.make({}).settings()
    assert recipe.size is not None
    size = recipe.size // settings.get("down", 1)
    assert (gen.name, gen.image_size, gen.dtype) == (name, (3, size, size), torch.float32)
    z = gen.sample(4, seed=2)
    assert isinstance(z, Tensor)
    assert z.flatten(1).shape[1] == settings.get("latent", 3 * size**2)
    assert (gen.partner is None) == (name in ALONE)
    if gen.partner is not None:
        with torch.no_grad():
            judged = gen.partner(gen(z))
        assert torch.isfinite(judged[0] if isinstance(judged, tuple) else judged).all()
    assert entry.summary == recipe.summary
    assert ("dcgan-faces, none of them real" in entry.trained_on) == (name in FACES)


@pytest.mark.parametrize("name", NAMES)
def test_its_card_names_the_command_that_makes_it(name: str) -> None:
    card = (trained.FOLDER / name / "README.md").read_text()
    recipe = trainable(name)
    assert re.search(rf"^counterfactual-probe train {name}( .*)?$", card, re.MULTILINE)
    done = re.search(rf"- (\d+) of {recipe.steps} steps", card)
    assert done is not None
    assert int(done[1]) == recipe.steps
    assert "**Not trained to its end**" not in card
    settings = recipe.make({}).settings()
    shown = re.search(r"- Settings: (.*)\.\n", card)
    assert shown is not None
    told = dict(item.rsplit(" ", 1) for item in shown[1].split(", "))
    assert told.items() <= {key: str(value) for key, value in settings.items()}.items()
    assert set(settings) - set(told) <= {"d_rate", "warmup", "decay"}  # settings that came after the first were trained
    assert f"in {recipe.precision}, seed 0" in card
    assert ("none of them is real" in card) == (name in FACES)
    for picture in re.findall(r"\]\((.*?)\)", card):
        assert (trained.FOLDER / name / picture).exists()


def test_an_altered_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "dcgan-cifar10"
    for path in (trained.FOLDER / name).iterdir():
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / path.name).write_bytes(path.read_bytes())
    (tmp_path / "SHA256SUMS").write_bytes(trained.CHECKSUMS.read_bytes())
    monkeypatch.setattr(trained, "FOLDER", tmp_path)
    assert cp.load(name).image_size == (3, 32, 32)
    for file in ("discriminator.safetensors", "model.safetensors"):
        path = tmp_path / name / file
        path.write_bytes(path.read_bytes()[:-2] + b"\0\1")
        with pytest.raises(cp.ProbeError, match=rf"{file} has SHA-256 .*truncated or altered file"):
            _ = cp.load(name).partner
    # Nothing else looks at checksums that are not given.
    assert folders.load_folder(tmp_path / name).image_size == (3, 32, 32)


def likeness(one: Tensor, two: Tensor) -> float:
    """The correlation of two mean images."""
    return float(torch.corrcoef(torch.stack([one.mean(0).flatten(), two.mean(0).flatten()]))[0, 1])


@pytest.mark.parametrize("name", [name for name in NAMES if name in FACES])
def test_faces_are_like_those_trained_on(name: str, faces: cp.GeneratorAdapter) -> None:
    gen, n = cp.load(name), 32 if name == "flow-faces" else 64  # whose every image takes many forwards
    made, given = gen(gen.sample(n, seed=5)), faces(faces.sample(n, seed=5))
    given = F.avg_pool2d(given, 64 // gen.image_size[1])
    assert likeness(made, given) > 0.7
    assert float(made.std(0).mean()) > 0.4 * float(given.std(0).mean())  # and not one face for all
    with seeded(0):
        untrained = trainable(name).make({}).networks((3, 64, 64))
    velocity: Any = untrained.get("velocity")
    network = Flow(velocity) if velocity else untrained.get("decoder", untrained.get("generator"))
    assert network is not None
    with torch.no_grad():
        assert likeness(network.eval()(gen.sample(n, seed=5)), given) < 0.5


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("vae-faces")])
def test_encoders_find_pictures_that_were_not_trained_on(name: str, faces: cp.GeneratorAdapter) -> None:
    gen = cp.load(name)
    given = faces(faces.sample(64, seed=9))
    error = F.mse_loss(gen(gen.encode(given)), given)
    assert float(error) < 0.3 * float(given.var(0).mean())


# --- the network that a generator was trained with ------------------------------------------------


def test_a_discriminator_beside_the_weights_is_the_partner(tmp_path: Path) -> None:
    made = DCGANGenerator(4, [8, 4], 3), DCGANDiscriminator([4, 8], 3).eval()
    folders.save_folder(tmp_path, "dcgan", made[0].state_dict())
    assert cp.load(tmp_path).partner is None
    safetensors.torch.save_file(made[1].state_dict(), tmp_path / "discriminator.safetensors")
    gen = cp.load(tmp_path)
    images = gen(gen.sample(3))
    assert gen.partner is gen.partner is not None
    assert not gen.partner.training
    assert torch.equal(gen.partner(images), made[1](images))


def test_a_partner_that_does_not_fit_is_said_when_it_is_asked_for(tmp_path: Path) -> None:
    folders.save_folder(tmp_path, "dcgan", DCGANGenerator(4, [8, 4], 3).state_dict())
    safetensors.torch.save_file({"weight": torch.zeros(3)}, tmp_path / "discriminator.safetensors")
    gen = cp.load(tmp_path)  # which is as good as ever
    with pytest.raises(cp.ProbeError, match=r"holds no kernels main\.0\.weight.*give that of a DCGAN's discriminator"):
        _ = gen.partner
