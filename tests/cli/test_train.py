"""The command ``train``: what it prints, kills and going on, models that ship, and mistakes in a sentence."""

from __future__ import annotations

import csv
import random
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import counterfactual_probe as cp
from counterfactual_probe.base import checkpoint as checkpoints
from counterfactual_probe.base.files import load_header
from counterfactual_probe.cli import entry as cli
from counterfactual_probe.registry.weights import load_weights
from counterfactual_probe.training import recipes, trainable
from support import forks, processes
from support.paths import DOCS
from support.toy_training import squares

SMALL = ["--latent", "4", "--width", "6", "--batch", "5", "--device", "cpu"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i, pixels in enumerate(squares()):
        Image.fromarray(pixels.transpose(1, 2, 0)).save(pictures / f"{i:02d}.png")
    return tmp_path


def run(*arguments: str) -> int:
    return cli.main(["train", *arguments])


def losses(folder: Path | str) -> list[list[str]]:
    return list(csv.reader((Path(folder) / "losses.csv").read_text().splitlines()))


def test_train_then_probe(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "pictures/torn.png").write_bytes(b"")
    asked = ("vae", "--data", "pictures", "--epochs", "2", "-b", "0.001", "--terms", "mine", *SMALL)
    assert run(*asked) == 2
    assert "1 of 24 images in pictures cannot be read: torn.png (not an image)" in capsys.readouterr().err
    assert run(*asked, "--skip-unreadable") == 0
    assert "--skip-unreadable" in Path("out/vae/README.md").read_text()
    captured = capsys.readouterr()
    assert "1 of 24 images cannot be read and are left out: torn.png" in captured.err
    assert "vae: 100%" in captured.err
    assert "loss=" in captured.err
    lines = captured.out.splitlines()
    assert lines[-1] == "out/vae"
    assert re.fullmatch(r"8 steps, [\d.e+]+ per second", lines[-2])
    assert re.fullmatch(r"loss: [\d.]+ in the first step, [\d.]+ over the last 100", lines[0])
    assert "Terms: mine." in Path("out/vae/README.md").read_text()
    assert cli.main(["influence", "out/vae", "--layer", "decoder.level1", "--pairs", "3", "--out", "maps"]) == 0
    assert len(cp.InfluenceMaps.load("maps/maps-decoder.level1.safetensors")) == 6


def test_no_progress_leaves_stderr_empty(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("dcgan", "--data", "pictures", "--steps", "2", "--no-progress", *SMALL) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["vae", "--data", "pictures", "--steps", "5", "--seed", "3", "--lr", "0.002", "--set", "norm=true"],
        ["began", "--data", "pictures", "--steps", "4", "--size", "8", "--images", "11", "--set", "gamma=0.7"],
        ["dcgan", "--data", "pictures", "--epochs", "1", "--colours", "1", "--precision", "bf16"],
    ],
)
def test_the_cards_command_does_it_again(folder: Path, arguments: list[str]) -> None:
    assert run(*arguments, *SMALL, "--out", "a") == 0
    card = Path("a/README.md").read_text()
    command = next(line for line in card.splitlines() if line.startswith("counterfactual-probe train"))
    assert cli.main([*shlex.split(command)[1:], "--device", "cpu", "--out", "b"]) == 0
    assert losses("a") == losses("b")
    assert len(losses("a")) > 4


def test_options_reach_the_recipe(folder: Path) -> None:
    base = ["vae", "--data", "pictures", "--steps", "3", "--latent", "4", "--width", "6", "--batch", "5"]
    found = []
    for i, more in enumerate(["", "-b 0.1", "--latent 9", "--width 8", "--batch 7", "--lr 0.003", "--set norm=true"]):
        assert run(*base, *more.split(), "--device", "cpu", "--out", str(i)) == 0
        found.append(losses(str(i))[2:])
    assert all(found[0] != other for other in found[1:])


def test_going_on(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["vae", "--data", "pictures", *SMALL]
    assert run(*base, "--steps", "9", "--out", "whole") == 0
    assert run(*base, "--steps", "4", "--out", "part", "--resume") == 0
    assert "part holds no checkpoint to resume from: training starts at step 0" in capsys.readouterr().err
    assert run(*base, "--steps", "9", "--out", "part") == 2
    assert "part holds a training or another generator; go on with" in capsys.readouterr().err
    assert run(*base, "--steps", "9", "--out", "part", "--resume") == 0
    assert "resumed from step 4" in capsys.readouterr().err
    assert losses("part") == losses("whole")
    assert run(*base, "--steps", "9", "--out", "part", "--resume", "-b", "1") == 2
    assert "is of another run: its beta is 0.0005 and this run's 1.0" in capsys.readouterr().err


FLUSH = 4
SCRIPT = f"""
import sys, torch
from counterfactual_probe.base import checkpoint
from counterfactual_probe.cli import entry as cli
from counterfactual_probe.training import trainer
checkpoint.SECONDS_BETWEEN, trainer._SHARE, trainer.FLUSH = 0.0, 0, {FLUSH}
torch.set_num_threads(1)
sys.exit(cli.main({{arguments!r}}))
"""


def assert_survives_kills(model: str, *, steps: int, times: int, seed: int) -> None:
    def program(out: str) -> str:
        arguments = ["train", model, "--data", "pictures", "--steps", str(steps), "--resume", "--no-progress", *SMALL]
        return SCRIPT.format(arguments=[*arguments, "--out", out])

    forks.run(program("whole"))
    rng, positions, state = random.Random(seed), set(), Path("killed/state.safetensors")
    for _ in range(times):
        processes.kill(program("killed"), state, delay=rng.uniform(0, 0.2), writes=steps // FLUSH // (times + 1))
        positions.add(load_header(state, checkpoints.KIND)["progress"]["step"])
    assert len(positions) == times, "each part of the run gets further"
    forks.run(program("killed"))
    assert losses("killed") == losses("whole")
    assert len(losses("whole")) == steps + 1
    for name in Path("whole").glob("*.*"):
        if name.suffix in (".safetensors", ".png") and name.stem != "state":
            assert name.read_bytes() == (Path("killed") / name.name).read_bytes(), name
    assert not list(Path("killed").glob(".*")), "what kills have left is cleared"


@pytest.mark.long
def test_a_killed_training_goes_on_with_the_same_bits(folder: Path) -> None:
    assert_survives_kills("began", steps=60, times=2, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["vae", "dcgan", "began"])
def test_fifteen_kills(folder: Path, model: str) -> None:
    assert_survives_kills(model, steps=600, times=15, seed=1)


WIDTHS: dict[str, Any] = {
    "vae-faces": ([64, 64, 32, 16, 3], 128),
    "vae-faces-sharp": ([64, 64, 32, 16, 3], 128),
    "vae-cifar10": ([64, 32, 16, 3], 128),
    "dcgan-faces-small": ([128, 64, 32, 16, 3], 150),
    "dcgan-cifar10": ([64, 32, 16, 3], 150),
    "began-faces": ([32] * 8 + [3], 64),
}


@pytest.mark.parametrize("name", WIDTHS)
def test_models_that_ship_are_those_of_the_papers(name: str) -> None:
    entry = trainable(name)
    assert entry.size is not None
    recipe = entry.make({})
    networks = recipe.networks((3, entry.size, entry.size))
    channels, latent = WIDTHS[name]
    generator = networks.get("decoder", networks.get("generator"))
    assert generator is not None
    kernels = [part for part in generator.modules() if isinstance(part, (torch.nn.ConvTranspose2d, torch.nn.Conv2d))]
    if "vae" in name:
        assert [kernels[0].in_channels, *(part.out_channels for part in kernels)] == channels
    else:
        assert [part.out_channels for part in kernels] == channels
    assert recipe.settings()["latent"] == latent
    for optimiser in recipe.optimisers(networks).values():
        assert optimiser.defaults["betas"][0] == (0.9 if "began" in name else 0.5)
    if "began" not in name:
        assert recipe.batch == 64
    if "vae" in name:
        assert recipe.settings()["beta"] == (0.00005 if "sharp" in name else 0.0005)


@pytest.mark.parametrize("name", ["vae-faces", "dcgan-faces-small", "began-faces"])
def test_models_that_ship_train_with_one_command(name: str, tmp_path: Path) -> None:
    arguments = ["--images", "4", "--batch", "2", "--steps", "1", "--device", "cpu", "--out", str(tmp_path)]
    assert run(name, *arguments) == 0
    gen = cp.load(tmp_path)
    assert (gen.name, gen.image_size) == (name, (3, 64, 64))
    card = (tmp_path / "README.md").read_text()
    assert "Training images: 4 samples of the generator dcgan-faces (seed 0)" in card
    assert "DigiFace-1M" in card
    assert (tmp_path / "discriminator.safetensors").exists() == (name != "vae-faces")
    if name == "began-faces":
        assert "convergence" in losses(tmp_path)[0]
        assert any(key.startswith("encoder.") for key in load_weights(tmp_path / "discriminator.safetensors"))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["vae-fces"], "no model named 'vae-fces' can be trained; nearest: 'vae-faces'"),
        (["vae"], "vae has no data of its own; give data=, or --data: a folder or zip"),
        (["vae-cifar10"], "vae-cifar10 has no data of its own; give data=, or --data: CIFAR-10 as"),
        (["vae", "--data", "nowhere"], "there is no folder or zip nowhere"),
        (["vae", "--data", "empty"], "empty holds no images"),
        (["dcgan", "--data", "pictures", "--beta", "1"], "dcgan has no setting 'beta', which would be ignored"),
        (["vae", "--data", "pictures", "--set", "gamma=1"], "vae has no setting 'gamma', which would be ignored"),
        (["began", "--data", "pictures", "--set", "gamma"], "--set is 'gamma'; give NAME=VALUE"),
        (["vae", "--data", "pictures", "--set", "lr=1"], "--set lr=1 names an option; give --lr once"),
        (["began", "--data", "pictures", "--set", "gamma=wide"], "gamma is 'wide'; give a number above 0"),
        (["vae", "--data", "pictures"], "23 images are fewer than a batch of 64; give more images"),
        (["vae", "--data", "pictures", "--steps", "3", "--epochs", "1"], "both steps (3) and epochs (1) are given"),
        (["vae", "--data", "pictures", "--batch", "5", "--size", "12"], "images are 12×12; give a size"),
        (["vae", "--data", "mixed", "--batch", "1"], "the images in mixed have 2 sizes (8×8: 1, 9×9: 1); give size="),
        (["vae", "--data", "generator:vae-fces"], "no generator named 'vae-fces' is in the registry"),
    ],
)
def test_mistakes_are_one_sentence(
    folder: Path, arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("empty").mkdir()
    Path("mixed").mkdir()
    for side in (8, 9):
        Image.new("RGB", (side, side)).save(f"mixed/{side}.png")
    assert run(*arguments, "--no-progress") == 2
    captured = capsys.readouterr()
    *notes, last = captured.err.splitlines()
    assert last.startswith("counterfactual-probe: ")
    assert sentence in last
    assert len(notes) == (1 if "--size" in arguments else 0), "only what was done to the data"
    assert captured.out == ""


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a graphics card")
def test_no_graphics_card(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("vae", "--data", "pictures", "--batch", "5", "--device", "cuda") == 2
    assert "device is 'cuda', which cannot be trained on here; give cpu or cuda" in capsys.readouterr().err


def test_the_documents_recipe_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (DOCS / "training.md").read_text()
    (code,) = [
        block for block in re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE) if "Recipe" in block
    ]
    forks.run(code)
    assert cp.load("out/moments").image_size == (3, 16, 16)
    for name in recipes():
        assert f"`{name}`" in text
        for setting in trainable(name).make({}).settings():
            assert f"`{setting}`" in text
