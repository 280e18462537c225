"""Training goes on after a kill with the same bits, says what stops it, and runs on what Accelerate finds."""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import counterfactual_probe as cp
from counterfactual_probe.base import checkpoint as checkpoints
from counterfactual_probe.registry.weights import load_weights
from counterfactual_probe.training import Step, Trained, Update, recipes, trainable
from support.processes import finish, imported_by, start
from support.toy_training import SMALL, Toy, assert_same, small, squares, train

NAMES = sorted(SMALL)


@pytest.fixture
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint whenever the losses are looked at."""
    monkeypatch.setattr(checkpoints, "SECONDS_BETWEEN", 0.0)
    monkeypatch.setattr("counterfactual_probe.training.trainer._SHARE", 0)


@pytest.fixture(autouse=True)
def _nothing_seen() -> Iterator[None]:
    Toy.seen.clear()
    yield
    Toy.seen.clear()


# --- going on -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A toy trained for 50 steps without a stop."""
    return train(Toy(), tmp_path_factory.mktemp("toy") / "whole", steps=50)


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A VAE of three steps, of whose folder tests take a copy."""
    return cp.train(small("vae"), squares(), out=tmp_path_factory.mktemp("vae") / "three", steps=3, device="cpu")


@pytest.mark.usefixtures("_often")
@pytest.mark.parametrize("stop_at", [3, 17, 40])
def test_an_interrupted_run_goes_on_with_the_same_bits(tmp_path: Path, whole: Trained, stop_at: int) -> None:
    with pytest.raises(cp.Interrupted, match=f"interrupted at step {stop_at}; ") as caught:
        train(Toy(stop_at=stop_at), tmp_path / "part", steps=50)
    assert ("resume goes on from it" in str(caught.value)) == (stop_at >= 4)
    rename_setting(tmp_path / "part/state.safetensors")
    part = train(Toy(), tmp_path / "part", steps=50, resume=True)
    assert part.resumed_at == (0 if stop_at < 4 else stop_at - stop_at % 4)
    assert_same(whole, part)
    assert (whole.folder / "model.safetensors").read_bytes() == (tmp_path / "part/model.safetensors").read_bytes()


def rename_setting(path: Path) -> None:
    """Let the toy that stopped be taken for one that does not: only its setting for that differs."""
    if path.exists():
        tensors, header = checkpoints.load_tensors(path, checkpoints.KIND)
        checkpoints.Checkpoint(path, header["identity"] | {"stop_at": -1}).save(tensors, header["progress"])


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_a_run_can_be_made_longer(tmp_path: Path, name: str) -> None:
    whole = train(small(name), tmp_path / "whole", steps=13)
    train(small(name), tmp_path / "part", steps=6)
    part = train(small(name), tmp_path / "part", steps=13, resume=True)
    assert part.resumed_at == 6
    assert_same(whole, part)
    again = train(small(name), tmp_path / "part", steps=13, resume=True)
    assert again.resumed_at == 13
    assert_same(whole, again)
    with pytest.raises(cp.ProbeError, match="holds a training of 13 steps and 6 are asked"):
        train(small(name), tmp_path / "part", steps=6, resume=True)


def test_what_kills_leave_half_written_is_cleared_and_nothing_else(tmp_path: Path) -> None:
    written = sorted(path.name for path in train(Toy(), tmp_path, steps=3).folder.iterdir())
    for name in written:
        (tmp_path / f".{name}.x1y2").write_bytes(b"half")
    (tmp_path / ".gitignore").write_text("*.png")
    train(Toy(), tmp_path, steps=3, resume=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".gitignore", *written]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"recipe": {"lr": 0.002}}, "its lr is 0.001 and this run's 0.002"),
        ({"recipe": {"beta": 0.1}}, "its beta is 0.0005 and this run's 0.1"),
        ({"recipe": {"width": 7}}, "its width is 6 and this run's 7"),
        ({"seed": 1}, "its seed is 0 and this run's 1"),
        ({"precision": "bf16"}, 'its precision is "float32" and this run\'s "bf16"'),
        ({"data": squares(seed=1)}, "its data is "),
        ({"data": squares(24)}, "its images is 23 and this run's 24|its data is "),
    ],
)
def test_other_settings_are_refused(vae: Trained, tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    shutil.copytree(vae.folder, tmp_path, dirs_exist_ok=True)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    recipe, data = small("vae", **change.pop("recipe", {})), change.pop("data", squares())
    with pytest.raises(cp.ProbeError, match=f"is of another run: {sentence}"):
        cp.train(recipe, data, out=tmp_path, steps=3, device="cpu", resume=True, **change)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_is_not_overwritten_by_accident(tmp_path: Path) -> None:
    train(Toy(), tmp_path / "a", steps=2)
    with pytest.raises(cp.ProbeError, match="holds a training or another generator; go on with resume=True"):
        train(Toy(), tmp_path / "a", steps=2)
    (tmp_path / "b").mkdir()
    (tmp_path / "b/pytorch_model.bin").write_bytes(b"mine")
    with pytest.raises(cp.ProbeError, match="or another generator"):
        train(Toy(), tmp_path / "b", steps=2)


def test_losses_that_are_missing_beside_a_checkpoint(tmp_path: Path) -> None:
    train(Toy(), tmp_path, steps=4)
    lines = (tmp_path / "losses.csv").read_text().splitlines()
    (tmp_path / "losses.csv").write_text("\n".join(lines[:3]))
    with pytest.raises(cp.ProbeError, match=r"losses\.csv holds no losses of 4 steps"):
        train(Toy(), tmp_path, steps=9, resume=True)
    (tmp_path / "losses.csv").unlink()
    with pytest.raises(cp.ProbeError, match=r"losses\.csv cannot be read"):
        train(Toy(), tmp_path, steps=9, resume=True)


# --- what stops a run -----------------------------------------------------------------------------


@pytest.mark.usefixtures("_often")
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"nan_at": 36}, r"toy diverged at step 37, where loss is nan; the last good checkpoint, of step 36, is in .*"),
        (
            {"infinite_gradient_at": 21},
            "toy diverged at step 22, where gradient both is (inf|nan); the last good checkp",
        ),
        (
            {"nan_at": 1},
            "toy diverged at step 2, where loss is nan; no checkpoint had been written yet; start again wi",
        ),
    ],
)
def test_a_diverging_run_stops(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(cp.ProbeError, match=sentence):
        train(Toy(**change), tmp_path, steps=60)
    if "no checkpoint" not in sentence:
        gen = cp.load(tmp_path)
        assert bool(gen(gen.sample(2)).isfinite().all())
        text = (tmp_path / "README.md").read_text()
        assert f"{36 if 'nan_at' in change else 20} of 60 steps" in text
    rows = (tmp_path / "losses.csv").read_text().splitlines()
    assert "nan" not in "".join(rows)


def test_weights_are_looked_at_before_they_are_kept(tmp_path: Path) -> None:
    sentence = r"toy diverged at step 1, after which the largest weight is 1e\+09; no checkpoint .* lr than 1e\+09"
    with pytest.raises(cp.ProbeError, match=sentence):
        train(Toy(lr=1e9), tmp_path, steps=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["losses.csv"]


def test_no_room_for_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 99, 1))
    with pytest.raises(cp.ProbeError, match=r"a checkpoint takes 0 MB and .* has 0 MB left; free some space"):
        train(Toy(), tmp_path, steps=2)
    assert Toy.seen == []


@pytest.mark.usefixtures("_often")
def test_a_disk_that_fills_up_keeps_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(Toy(), tmp_path / "whole", steps=30)
    calls, real = 0, os.fsync

    def full(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls > 12:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(cp.ProbeError, match=r"cannot be written \(No space left on device\); free some space"):
        train(Toy(), tmp_path / "part", steps=30)
    monkeypatch.undo()
    assert not list((tmp_path / "part").glob(".*")), "no partial file was left"
    part = train(Toy(), tmp_path / "part", steps=30, resume=True)
    assert 0 < part.resumed_at < 30
    assert_same(whole, part)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"steps": 0}, "steps is 0; give an integer of at least 1"),
        ({"steps": 3, "epochs": 1}, r"both steps \(3\) and epochs \(1\) are given; give one"),
        ({"steps": None, "epochs": -1}, "epochs is -1; give a number above 0"),
        ({"seed": -1}, "the seed is -1"),
        ({"precision": "fp8"}, "precision is 'fp8'; give one of float32, bf16"),
        ({"device": "tpu"}, "device is 'tpu', which cannot be trained on here; give cpu or cuda"),
        ({"lr": 0.1}, "lr is given beside a recipe; give it to the recipe itself"),
        (
            {"recipe": {"batch": 24}},
            "23 images are fewer than a batch of 24; give more images, or a batch of at most 23",
        ),
        ({"data": np.zeros((9, 3, 8, 16), np.uint8)}, "the images are 8×16; give size=, or --size"),
        ({"data": np.zeros((9, 3, 12, 12), np.uint8)}, "images are 12×12; give a size of 8, 16, 32"),
    ],
)
def test_mistakes(tmp_path: Path, options: dict[str, Any], sentence: str) -> None:
    recipe, data = small("vae", **options.pop("recipe", {})), options.pop("data", squares())
    with pytest.raises(cp.ProbeError, match=sentence):
        cp.train(recipe, data, **{"out": tmp_path / "out", "steps": 2, "device": "cpu", **options})
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"batch": 0}, "batch is 0; give an integer of at least 1"),
        ({"lr": 0}, "lr is 0; give a number above 0"),
        ({"lr": float("nan")}, "lr is nan; give a number above 0"),
        ({"latent": 0}, "latent is 0"),
        ({"width": 2.5}, "width is 2.5"),
        ({"colour": 1}, "has no setting 'colour', which would be ignored; leave it out"),
    ],
)
def test_settings_that_make_no_sense(name: str, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(cp.ProbeError, match=sentence):
        trainable(name).make(settings)


def test_names_that_are_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where the folders by default, out/vae, do not exist yet
    with pytest.raises(cp.ProbeError, match="no model named 'vae-fces' can be trained; nearest: 'vae-faces'"):
        cp.train("vae-fces")
    with pytest.raises(cp.ProbeError, match="vae has no data of its own; give data=, or --data"):
        cp.train("vae")


def test_recipes_that_are_wrong(tmp_path: Path) -> None:
    class Other(Toy):
        def step(self, step: Step) -> Iterator[Update]:
            for update in super().step(step):
                yield Update("neither", update.loss, update.shown)

    class Changing(Toy):
        def step(self, step: Step) -> Iterator[Update]:
            for update in super().step(step):
                yield Update("both", update.loss, {f"loss {step.number}": update.loss})

    class Detached(Toy):
        def step(self, step: Step) -> Iterator[Update]:
            zero = torch.zeros((), requires_grad=True)
            yield Update("both", zero * 1, {"loss": zero})

    with pytest.raises(cp.ProbeError, match="an update names the optimiser 'neither'; the recipe's are both"):
        train(Other(), tmp_path)
    with pytest.raises(cp.ProbeError, match="a step shows loss 1, gradient both and the first showed loss 0"):
        train(Changing(), tmp_path)
    with pytest.raises(cp.ProbeError, match="no parameter of this optimiser has a gradient"):
        train(Detached(), tmp_path)


# --- Accelerate -----------------------------------------------------------------------------------


def test_mixed_precision_is_close_and_not_the_same(tmp_path: Path) -> None:
    exact = train(small("vae"), tmp_path / "a")
    mixed = train(small("vae"), tmp_path / "b", precision="bf16")
    again = train(small("vae"), tmp_path / "c")
    one, two = exact.losses["loss"], mixed.losses["loss"]
    assert not np.array_equal(one, two)
    np.testing.assert_allclose(one, two, rtol=0.05)
    assert_same(exact, again)
    assert all(value.dtype != torch.bfloat16 for value in load_weights(tmp_path / "b/model.safetensors").values())


def test_without_accelerate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(
        cp.ProbeError,
        match=r"runs on Accelerate, which is not installed; run: pip install .counterfactual-probe\[train\]",
    ):
        train(Toy(), tmp_path)


def test_importing_the_library_loads_neither_accelerate_nor_pillow() -> None:
    assert not {"accelerate", "PIL"} & imported_by()


RANKS = """
import counterfactual_probe as cp
from support.toy_training import small, squares
cp.train(small({name!r}, batch=6, **{settings!r}), squares(), out={out!r}, steps=9, device="cpu")
"""


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("sdrvae", {"norm": False}),
        pytest.param("vae", {"norm": False}, marks=pytest.mark.slow),
        pytest.param("began", {}, marks=pytest.mark.slow),
    ],
)
def test_two_processes_share_a_batch(tmp_path: Path, name: str, settings: dict[str, Any]) -> None:
    alone = train(small(name, batch=6, **settings), tmp_path / "alone", steps=9)
    for status, errors in finish(start(2, RANKS.format(name=name, settings=settings, out=str(tmp_path / "two")))):
        assert status == 0, errors
    header, *rows = (tmp_path / "two/losses.csv").read_text().splitlines()
    shared = np.array([[float(value) for value in row.split(",")[1:]] for row in rows])
    for column, (key, values) in enumerate(alone.losses.items()):
        assert header.split(",")[column + 1] == key
        np.testing.assert_allclose(shared[:, column], values, rtol=2e-3, atol=1e-5, err_msg=key)
    assert "2 processes" in (tmp_path / "two/README.md").read_text()
    assert cp.load(tmp_path / "two").image_size == (3, 16, 16)


def test_every_recipe_is_found() -> None:
    found = recipes()
    assert found == sorted(found)
    assert {
        "vae",
        "vae-faces",
        "vae-faces-sharp",
        "vae-cifar10",
        "dcgan",
        "dcgan-faces-small",
        "dcgan-cifar10",
        "began",
        "began-faces",
    } <= {*found}
    for name in found:
        assert re.fullmatch(r"[a-z0-9-]+", name)
        assert trainable(name).name == name
