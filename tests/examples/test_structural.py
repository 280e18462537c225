"""The examples on structural autoencoders: the scene in three parts, looks on the way, and toy runs to their files."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

import counterfactual_probe as cp
from counterfactual_probe.base.errors import ProbeError

pytestmark = [pytest.mark.examples, pytest.mark.usefixtures("examples")]
TOY = ["--side", "8", "--convolutions", "2", "--steps", "4", "--stages", "2", "--images", "64", "--validation", "16"]
TOY += ["--test", "60", "--rows", "40", "--batch", "16", "--device", "cpu"]


def example(name: str) -> Any:
    return importlib.import_module(f"structural_{name}")


def toy_size(**more: Any) -> Any:
    given = {"side": 8, "convolutions": 2, "steps": 4, "stages": 2, "images": 64, "validation": 16, "test": 60}
    return dataclasses.replace(example("models").REDUCED, **{**given, "rows": 40, "batch": 16, **more})


def test_no_image_is_in_two_parts_of_the_scene() -> None:
    data = example("data")
    small = data.split_scene(toy_size(), show_progress=False)
    more = data.split_scene(toy_size(images=200, test=300), show_progress=False)
    assert (small.labels == more.labels[:64]).all()
    assert (small.factors == more.factors[:60]).all()
    numbers = [{tuple(row) for row in part.tolist()} for part in (more.labels, more.factors)]
    assert len(numbers[0]) == 200
    assert not numbers[0] & numbers[1]
    scene = cp.data.Scene(8)
    assert (scene.render(small.factors) == small.test).all()
    assert (scene.render(small.labels) == small.train.pixels).all()


def test_labelled_files_are_parted_as_the_scene_is(tmp_path: Path) -> None:
    scene = cp.data.Scene(64)
    rows = np.concatenate([scene.sample(80, seed=0), np.arange(15)[:, None] % [10, 10, 10, 8, 4, 15]])
    with h5py.File(tmp_path / "3dshapes.h5", "w") as file:
        file["images"] = np.moveaxis(scene.render(rows).numpy(), 1, -1)
        file["labels"] = rows * [0.1, 0.1, 0.1, 0.07, 1, 4.3]
    data = example("data")
    size = toy_size(side=64, images=None, validation=None, test=None, rows=9)
    found = data.split_data(str(tmp_path / "3dshapes.h5"), size, show_progress=False)
    assert [len(part) for part in (found.train, found.validation, found.test)] == [66, 10, 19]
    assert (scene.render(found.factors) == found.test).all()
    assert (scene.render(found.labels) == found.train.pixels).all()
    seen = torch.cat([found.train.pixels, found.validation, found.test]).flatten(1)
    assert len(seen.unique(dim=0)) == len(torch.from_numpy(rows).unique(dim=0))
    for more, message in (
        ({"side": 32}, "are 64×64 and the models are for 32×32; give --side 64"),
        ({}, "rows is 19 and there are 19 test images; leave some"),
    ):
        with pytest.raises(ProbeError, match=message):
            data.split_data(str(tmp_path / "3dshapes.h5"), dataclasses.replace(size, rows=19, **more))


def pictures(folder: Path) -> str:
    folder.mkdir()
    for number, pixels in enumerate(cp.data.Scene(8).images(90).pixels):
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / f"{number:02d}.png")
    return str(folder)


def test_pictures_without_factors_are_compared_in_all_else(tmp_path: Path) -> None:
    given = [*TOY, "--data", pictures(tmp_path / "faces"), "--images", "60", "--test", "18", "--rows", "3"]
    given += ["--stages", "1", "--models", "SAE-2", "VAE", "--quality", "4", "--shown", "2"]
    example("autoencoders").main([*given, "--out", str(tmp_path / "out")])
    rows = json.loads((tmp_path / "out/table.json").read_text(encoding="utf-8"))
    assert len(rows) == 4
    assert not {"DCI-d", "rows fitted"} & set(rows[0])
    sentences = (tmp_path / "out/findings.md").read_text(encoding="utf-8")
    assert "SAE-2 reconstructs better than VAE" in sentences
    assert "disentangled" not in sentences
    with pytest.raises(ProbeError, match=r"chosen by factors of 3D-Shapes, which .*faces lacks; give 3dshapes\.h5"):
        example("extrapolation").main([*given[: given.index("--quality")], "--out", str(tmp_path / "more")])


def test_the_papers_sizes_need_one_flag(tmp_path: Path) -> None:
    models = example("models")
    for flag, first, parameters in (("paper", "SAE-12", 1_221_967), ("paper-128", "SAE-16", 5_282_083)):
        parser = argparse.ArgumentParser()
        models.add_options(parser, out=str(tmp_path), data="scene")
        options = parser.parse_args(["--size", flag])
        size = models.chosen_size(options)
        assert size.models[0] == first
        with torch.device("meta"):
            made = models.recipe_of(first, size).networks((3, size.side, size.side))
        assert sum(value.numel() for each in made.values() for value in each.parameters()) == parameters
        settings = size.settings(models.MODELS["VAE"])
        # Adam's constant rate, and the KL whole from the first step, of codes as the authors' start
        papers = {"lr": 5e-4, "warmup": 0, "decay": 0, "beta": 1, "anneal": 0, "deviation": 1}
        assert papers.items() <= settings.items()
    with pytest.raises(ProbeError, match="a latent of 12 dimensions cannot be split evenly into 16 variables"):
        models.chosen_size(parser.parse_args(["--size", "paper", "--models", "SAE-16"]))


def test_an_autoencoder_as_large_as_a_structural_one() -> None:
    models = example("models")
    for flag, share in (("reduced", 0.01), ("paper", 0.03)):
        size = models.SIZES[flag]
        plain, equal, ours = (models.parameters_of(models.MODELS[name], size) for name in ("AE", "AE-equal", "SAE-12"))
        assert abs(equal / ours - 1) < share < ours / plain - 1
        assert size.settings(models.MODELS["AE-equal"])["convolutions"] > size.convolutions


def test_a_model_is_looked_at_on_its_way_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models, size = example("models"), toy_size()
    data = example("data").split_scene(size, show_progress=False)
    seen = models.watched("SAE-2", size, data, tmp_path, device="cpu")
    assert [look.steps for look in seen] == [2, 4]
    gen = cp.load(tmp_path, device="cpu")
    given = data.validation.float() / 255
    made = gen(gen.encode(given))  # type: ignore[attr-defined]
    assert seen[-1].error == pytest.approx(float((made - given).double().square().mean()), rel=1e-5)
    assert seen[0].error != seen[-1].error
    assert seen[-1].codes.shape == (60, 12)

    def refused(*_: Any, **__: Any) -> None:
        raise AssertionError("it was trained again")

    with pytest.raises(
        ProbeError, match=r"holds a model whose data is '64 renders .*' and not '64 renders .*'; give another --out"
    ):
        models.watched("SAE-2", size, example("data").split_scene(size, seed=1, show_progress=False), tmp_path)
    with pytest.raises(ProbeError, match=r"holds a model whose settings is .*; give another --out, or delete it"):
        models.watched("SAE-2", dataclasses.replace(size, lr=0.1), data, tmp_path)
    monkeypatch.setattr(cp, "train", refused)
    again = models.watched("SAE-2", size, data, tmp_path, device="cpu")
    assert [look.error for look in again] == [look.error for look in seen]
    assert all((one.codes == two.codes).all() for one, two in zip(again, seen, strict=True))


def test_models_are_matched_at_the_error_that_all_reach() -> None:
    models, scores = example("models"), example("scores")
    none = np.zeros((1, 1), np.float32)

    def looks(*errors: float) -> list[Any]:
        return [models.Seen(10 * (i + 1), error, none, 0.0) for i, error in enumerate(errors)]

    found = scores.matched({"good": looks(9, 5, 3, 2), "bad": looks(9, 8, 7, 5), "wavering": looks(4, 6, 4, 3)})
    assert {name: look.steps for name, look in found.items()} == {"good": 20, "bad": 40, "wavering": 10}


@pytest.mark.parametrize(
    ("differences", "words"),
    [
        ([0.1], "holds"),
        ([-0.1], "does not hold"),
        ([0.0], "does not hold"),
        ([0.1, 0.2], "holds in every seed"),
        ([0.1, -0.2], "holds in some seeds"),
        ([-0.1, -0.2], "does not hold in any seed"),
    ],
)
def test_what_is_said_of_differences(differences: list[float], words: str) -> None:
    assert example("scores").told(differences) == words


def test_findings_are_read_off_the_rows() -> None:
    main = example("autoencoders")

    def row(model: str, seed: int, score: float, when: str = main.EQUAL, **more: float) -> dict[str, Any]:
        return {"model": model, "seed": seed, "when": when, "DCI-d": score, "test error": 1 - score, **more}

    rows = [row("SAE-12", 0, 0.5), row("SAE-12", 1, 0.3), row("AE", 0, 0.2), row("AE", 1, 0.4)]
    rows += [row("VAE", 0, 0.1), row("VAE", 1, 0.1)]
    distances = {"Fréchet hybrid": 3.0, "Fréchet prior": 2.0}
    rows += [row(name, seed, 0.9, main.FINAL, **distances) for name in ("SAE-12", "VAE") for seed in (0, 1)]
    ae, vae, error, sampling = main.findings(rows)
    assert "more disentangled than AE” holds in some seeds. DCI-d is 0.4 (0.3 to 0.5) and 0.3 (0.2 to 0.4)" in ae
    assert "than VAE” holds in every seed" in vae
    assert "SAE-12 reconstructs better than VAE” does not hold in any seed" in error
    assert "Hybrid samples of VAE are as good as those of its prior, or better” does not hold in any seed" in sampling


def test_the_whole_run_in_toy_size(tmp_path: Path) -> None:
    options = ["--models", "SAE-2", "VAE", "--stages", "1", "--quality", "4", "--shown", "2", "--out", str(tmp_path)]
    example("autoencoders").main([*TOY, *options])
    rows = json.loads((tmp_path / "table.json").read_text(encoding="utf-8"))
    assert [(row["model"], row["when"]) for row in rows] == [
        (name, when) for name in ("SAE-2", "VAE") for when in ("final", "equal error")
    ]
    for row in rows:
        assert 0 <= row["DCI-d"] <= 1
        assert ("Fréchet prior" in row) == (row["model"] == "VAE" and row["when"] == "final")
        assert row["rows fitted"] == 40
    names = {path.name for path in tmp_path.glob("*.png")}
    each = {f"{what}-{name}.png" for what in ("traversals", "chunks") for name in ("SAE-2", "VAE")}
    assert names == each | {"validation.png", "reconstructions.png", "samples.png"}
    assert "Hybrid samples of VAE" in (tmp_path / "findings.md").read_text(encoding="utf-8")


def test_only_one_network_learns_the_new_kind(tmp_path: Path) -> None:
    extrapolation = example("extrapolation")
    extrapolation.main([*TOY, "--steps", "10", "--models", "SAE-2", "--shown", "2", "--out", str(tmp_path)])
    folder = tmp_path / "SAE-2-0-shape"
    state = {update: cp.load(folder / update, device="cpu").module.state_dict() for update in extrapolation.UPDATES}
    for update in extrapolation.UPDATES[1:]:
        for part in ("encoder", "decoder"):
            same = all(
                torch.equal(value, state["neither"][name])
                for name, value in state[update].items()
                if name.startswith(f"{part}.")
            )
            assert same == (update not in {part, "both"}), (update, part)
    rows = json.loads((tmp_path / "table-shape.json").read_text(encoding="utf-8"))
    data = example("data").split_scene(toy_size(), show_progress=False)
    new = data.factors[:, 4] == 2
    assert [row["update"] for row in rows] == [*extrapolation.UPDATES, extrapolation.CONTROL]
    assert {row["images"] for row in rows} == {int(new.sum())}
    gen: Any = cp.load(folder / "both", device="cpu")
    given = data.test[torch.from_numpy(new)].float() / 255
    error = float((gen(gen.encode(given)) - given).double().square().mean())
    assert rows[3]["error"] == pytest.approx(1000 * error, rel=1e-5)
    assert (tmp_path / "shape-SAE-2.png").exists()
    # The control starts from the same weights, updates both, and sees no image of the new kind.
    control = cp.load(folder / "both-old-images", device="cpu").module.state_dict()
    for part in ("encoder", "decoder"):
        assert any(not torch.equal(value, state["neither"][k]) for k, value in control.items() if k.startswith(part))
    assert any(not torch.equal(value, state["both"][name]) for name, value in control.items())
    assert "without the new shapes" in (folder / "both-old-images" / "README.md").read_text(encoding="utf-8")
    assert "needs no new image" in (tmp_path / "findings-shape.md").read_text(encoding="utf-8")


def test_the_share_of_a_gain_that_needs_no_new_image() -> None:
    extrapolation = example("extrapolation")
    errors = {"neither": 4.0, "encoder": 3.8, "decoder": 2.2, "both": 2.0, "both, old images": 3.2}
    rows = [{"model": "AE", "seed": 0, "update": update, "error": error} for update, error in errors.items()]
    said = extrapolation.findings(rows)
    assert said[1].startswith("Of what updating both gains AE, 0.4 needs no new image")


def test_the_first_training_sees_none_of_the_new_kind() -> None:
    extrapolation = example("extrapolation")
    labels = cp.data.Scene(8).sample(3000)
    shapes, angles = (extrapolation.is_new(labels, kind) for kind in ("shape", "angle"))
    assert 0.22 < shapes.mean() < 0.28
    assert 0.37 < angles.mean() < 0.43
    assert set(labels[~shapes, 4]) == {0, 1, 3}
    assert set(labels[~angles, 5]) == set(range(3, 12))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--models", "SAE-5"], r"no model is called 'SAE-5'; the models are SAE-16, SAE-12"),
        (["--rows", "60", "--models", "AE"], r"rows is 60 and there are 60 test images; leave some"),
        (["--stages", "0"], r"stages is 0"),
        (["--steps", "0"], r"steps is 0; give an integer of at least 1"),
    ],
)
def test_options_that_do_not_fit(more: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match=message):
        example("autoencoders").main([*TOY, *more, "--out", str(tmp_path)])
