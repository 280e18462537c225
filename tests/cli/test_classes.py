"""``--classes``: what is sampled, or searched, has the classes that are named, and the rest is as without them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

import counterfactual_probe as cp
from counterfactual_probe.base.files import write_json
from counterfactual_probe.cli.common import open_generator
from counterfactual_probe.cli.entry import main

SOURCE = """
import torch, counterfactual_probe as cp

class Conditional(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.classes = torch.nn.Embedding(2, 4)
        self.main = torch.nn.Sequential(torch.nn.ConvTranspose2d(8, 7, 4), torch.nn.ReLU(),
                                        torch.nn.ConvTranspose2d(7, 3, 4, 2, 1), torch.nn.Tanh())
    def forward(self, z, y):
        return self.main(torch.cat([z, self.classes(y)], 1)[:, :, None, None])

def draw(n, rng, classes=None):
    z = torch.randn(n, 4, generator=rng)
    if classes is None:
        return {"z": z, "y": torch.randint(2, (n,), generator=rng)}
    if classes not in ("day", "night", 0, 1):
        raise cp.ProbeError(f"no class is named {classes!r}; nearest: 'day', 'night'")
    return {"z": z, "y": torch.full((n,), {"day": 0, "night": 1}.get(classes, classes))}

def make():
    torch.manual_seed(0)
    return cp.wrap(Conditional(), draw, name="mine", layers=["main.1"])

def encoding():
    made = make()
    made.encode = lambda images: made.sample(len(images))
    return made

def plain():
    return cp.wrap(make().module.main, lambda n, rng: torch.randn(n, 8, 1, 1, generator=rng), name="plain")
"""
MINE, LAYER = "users_own:make", "main.1"
UNITS = {LAYER: (0, 3)}
SEARCH = ["--starts", "2", "--steps", "3", "--no-progress"]
EDIT = ["edit", MINE, "--module", "few", "--modules-file", "few.json", "-n", "2", "--no-progress", "--out", "o"]
QUICK = {"starts": 2, "steps": 3}


@pytest.fixture
def gen(users_module: Callable[[str, str], Path]) -> cp.GeneratorAdapter:
    folder = users_module("users_own", SOURCE)
    (folder / "pictures").mkdir()
    for number in range(2):
        Image.new("RGB", (8, 8), (90 * number, 120, 30)).save(folder / f"pictures/{number}.png")
    write_json(folder / "few.json", {"modules": [{LAYER: [0, 3]}], "names": ["few units"]})
    return open_generator(MINE, None)


def pictures(gen: cp.GeneratorAdapter) -> torch.Tensor:
    from counterfactual_probe.editing.pictures import pictures_for

    return pictures_for(gen, "pictures", most=2)


@pytest.mark.parametrize("classes", [("day", "night"), ("1", "0")])
def test_hybrids_of_two_classes(classes: tuple[str, str], gen: cp.GeneratorAdapter) -> None:
    run = ["hybridize", MINE, "--layer", LAYER, "--units", "0,3", "-n", "3", "--no-progress", "--out", "o"]
    assert main([*run, "--classes", *classes]) == 0
    found = cp.Hybrids.load("o/hybrids-main.1.safetensors")
    base, source = (int(name) if name.isdecimal() else ["day", "night"].index(name) for name in classes)
    z1, z2 = gen.sample(3, classes=base), gen.sample(3, stream=1, classes=source)
    assert z1["y"].tolist() == [base] * 3
    assert torch.equal(found.images, cp.Hybridizer(gen, LAYER).hybridize(z1, z2, units=[[0, 3]]).images)
    assert main([*run, "--force"]) == 0
    without = cp.Hybrids.load("o/hybrids-main.1.safetensors")
    assert torch.equal(without.base, gen(gen.sample(3)))
    assert not torch.equal(without.base, found.base)


def test_edits_of_latents_of_two_classes(gen: cp.GeneratorAdapter) -> None:
    assert main([*EDIT, "--classes", "night", "day"]) == 0
    edited = cp.Edited.load("o/edited.safetensors")
    z1, z2 = gen.sample(2, classes="night"), gen.sample(2, stream=1, classes="day")
    assert torch.equal(edited.base, gen(z1))
    assert torch.equal(edited.source, gen(z2))


def test_pictures_are_searched_among_images_of_their_class(gen: cp.GeneratorAdapter) -> None:
    assert main([*EDIT, *SEARCH, "--pictures", "pictures", "--classes", "night", "day"]) == 0
    edited = cp.Edited.load("o/edited.safetensors")
    with pytest.warns(UserWarning, match="not reached"):
        found = cp.invert(gen, pictures(gen), classes="night", **QUICK)
    assert found.latents["y"].tolist() == [1, 1]
    z2 = gen.sample(2, stream=1, classes="day")
    assert torch.equal(edited.images, cp.Hybridizer(gen, LAYER).hybridize(found.latents, z2, units=UNITS).images[0])


@pytest.mark.parametrize(("classes", "expected"), [(["night"], [1, 1]), (["night", "day"], [1, 0])])
def test_inversion_by_class(classes: list[str], expected: list[int], gen: cp.GeneratorAdapter) -> None:
    assert main(["invert", MINE, "pictures", *SEARCH, "--out", "o", "--classes", *classes]) == 0
    found = cp.Inversion.load("o/inversion.safetensors")
    assert found.latents["y"].tolist() == expected
    with pytest.warns(UserWarning, match="not reached"):
        direct = cp.invert(gen, pictures(gen), classes=expected, **QUICK)
    assert torch.equal(found.images, direct.images)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([*EDIT, "--classes", "day", "dusk"], "no class is named 'dusk'; nearest: 'day', 'night'"),
        ([*EDIT, "--classes", "dusk", "day"], "no class is named 'dusk'"),
        ([*EDIT, "--classes", "day"], "expected 2 arguments"),
        ([*EDIT, "--pictures", "pictures", "--classes", "dusk", "day"], "no class is named 'dusk'"),
        (["invert", MINE, "pictures", "--classes", "dusk"], "no class is named 'dusk'"),
        (["invert", MINE, "pictures", "--classes", "day", "day", "day"], "classes holds 3 values for 2 samples"),
        (
            ["hybridize", "users_own:plain", "--layer", "1", "--units", "0", "--classes", "day", "night"],
            "plain takes no classes, since its sample_latents has no argument of that name; leave it out",
        ),
        (
            ["edit", "users_own:encoding", *EDIT[2:], "--pictures", "pictures", "--classes", "day", "night"],
            "--classes is given, and mine encodes pictures as it sees them; leave it out",
        ),
    ],
)
@pytest.mark.usefixtures("gen")
def test_a_class_that_is_none_is_said_before_anything_is_written(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(path for path in Path().rglob("*") if "__pycache__" not in path.parts)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert sorted(path for path in Path().rglob("*") if "__pycache__" not in path.parts) == before


def test_modules_of_other_weights_are_refused(gen: cp.GeneratorAdapter, capsys: pytest.CaptureFixture[str]) -> None:
    about = {"weights_sha256": "f" * 64}
    write_json(Path("few.json"), {"modules": [{LAYER: [0, 3]}], "names": ["few units"], "provenance": about})
    file = ["--modules-file", "few.json", "--out", "o"]
    judged = ["--classes", "day", "night", "--classifier", "efficientnet-lite0", "--class-map", "day=1"]
    robustness = ["robustness", "--generator", MINE, *judged, "--class-map", "night=2", *file]
    for command in (EDIT, ["hybridize", MINE, *file], ["exchange", MINE, *file], ["fidelity", MINE, *file], robustness):
        assert main(command) == 2
        said = capsys.readouterr().err
        assert "the modules of few.json were found with other weights (ffffffffffff…) than those of mine" in said
        assert not Path("o").exists()
