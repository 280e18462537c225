"""The command ``robustness`` and its page, from the command line to the files."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import counterfactual_probe as cp
from counterfactual_probe.base.files import safe_name
from counterfactual_probe.cli import entry as cli
from counterfactual_probe.robustness.finding import modules_by_layer
from support.paths import module_of

FACTORY = """
import torch, counterfactual_probe as cp

class Conditional(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.classes = torch.nn.Embedding(2, 4)
        self.main = torch.nn.Sequential(torch.nn.ConvTranspose2d(8, 7, 4), torch.nn.ReLU(),
                                        torch.nn.ConvTranspose2d(7, 6, 4, 2, 1), torch.nn.ReLU(),
                                        torch.nn.ConvTranspose2d(6, 3, 4, 2, 1), torch.nn.Tanh())
    def forward(self, z, y):
        return self.main(torch.cat([z, self.classes(y)], 1)[:, :, None, None])

def draw(n, rng, classes=0):
    return {"z": torch.randn(n, 4, generator=rng), "y": torch.full((n,), ["day", "night"].index(classes))}

def make():
    torch.manual_seed(0)
    return cp.wrap(Conditional(), lambda n, rng, classes="day": draw(n, rng, classes), name="mine",
                   layers=["main.1", "main.3"])

def plain():
    return cp.wrap(make().module.main, lambda n, rng: torch.randn(n, 8, 1, 1, generator=rng), name="plain")

def judge(seed=1, name="judge"):
    torch.manual_seed(seed)
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3, bias=False))
    module[1].weight.data.mul_(100)
    transform = cp.Preprocessing((8, 8), mean=(0.5,) * 3, std=(0.5,) * 3)
    return cp.Classifier(module, transform, class_names=["day", "night", "dawn"], name=name)

def other():
    return judge(2, "other <b>judge</b>")

def no_judge():
    return torch.nn.Identity()
"""
ARGUMENTS = [
    "--generator",
    "users_own:make",
    "--classifier",
    "users_own:judge",
    "users_own:other",
    "--classes",
    "day",
    "night",
]


@pytest.fixture
def folder(users_module: Callable[[str, str], Path]) -> Path:
    return users_module("users_own", FACTORY)


def run(*arguments: str) -> int:
    return cli.main(["robustness", *arguments])


def test_the_page_and_its_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--pairs", "6", "--hybrids", "40", "--modules", "2", "--layers", "main.1,main.3"]
    assert run(*ARGUMENTS, *few, "--out", "a", "--no-progress") == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "a/robustness.html"
    assert re.search(r"^1\. (judge|other <b>judge</b>): [01]\.\d+ \(", out, re.MULTILINE)
    other = f"{safe_name('entropy_other <b>judge</b>')}.svg"
    assert other.startswith("entropy_other-b-judge-b~")
    figures = ["disagreements.webp", "entropy_judge.svg", other, "recognition.svg"]
    assert sorted(path.name for path in Path("a/figures").iterdir()) == figures
    result = cp.Robustness.load("a/robustness.safetensors")
    assert (result.layers, result.modules, result.n_pairs) == (("main.1", "main.3"), ("1", "2"), 6)
    page = Path("a/robustness.html").read_text()
    assert page.count("<img ") == len(re.findall(r"data:image/(?:webp|svg\+xml);base64,", page)) == 4
    assert "<b>" not in page.replace("&lt;b&gt;", "")
    for text in (
        "Hybrids of day and night",
        "other &lt;b&gt;judge&lt;/b&gt;",
        f"{result.best[0, 1, 0]:.3f}",
        "8×8, bicubic",
        "<td>module 1</td>",
    ):
        assert text in page
    assert json.loads(Path("a/robustness.json").read_text())["provenance"]["seed"] == 0
    # The same seed gives the same page; another gives another.
    assert run(*ARGUMENTS, *few, "--out", "b", "--no-progress") == 0
    assert Path("b/robustness.html").read_bytes() == Path("a/robustness.html").read_bytes()
    assert run(*ARGUMENTS, *few, "--out", "c", "--seed", "7") == 0
    assert "robustness" in capsys.readouterr().err, "progress is shown"
    assert Path("c/robustness.csv").read_bytes() != Path("a/robustness.csv").read_bytes()


def test_modules_of_files_and_a_map_of_classes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["modules", "users_own:plain", "--layer", "1", "--pairs", "4", "--modules", "2", "--out", "m"]) == 0
    modules = json.loads(Path("m/modules-1.json").read_text())
    ours = [{"main.1": own["1"]} for own in modules["modules"]]
    Path("m/ours.json").write_text(json.dumps({"modules": ours}))
    given = ["--modules-file", "m/ours.json", "--pairs", "4", "--no-progress", "--out", "d"]
    assert run(*ARGUMENTS, *given, "--class-map", "day=day,dawn", "--class-map", "night=1") == 0
    result = cp.Robustness.load("d/robustness.safetensors")
    assert result.layers == ("main.1",)
    assert result.provenance["classifiers"][0]["counts_as"] == {
        "day": {"0": "day", "2": "dawn"},
        "night": {"1": "night"},
    }
    capsys.readouterr()
    assert run(*ARGUMENTS[:4], "--classes", "day", "night", "--force", *given) == 0
    assert "all classifiers" not in capsys.readouterr().out.lower()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            [*ARGUMENTS[:3], "users_own:no_judge"],
            r"'users_own:no_judge' returned a Identity; let the factory return cp\.Class",
        ),
        ([*ARGUMENTS[:3], "users_own:nobody"], "'users_own:nobody' cannot be imported"),
        (
            [*ARGUMENTS[:3], "resnet81"],
            "no classifier named 'resnet81' is in the registry or in timm; nearest: 'resnet",
        ),
        (
            ["--generator", "users_own:plain", *ARGUMENTS[2:4]],
            "plain takes no classes, since its sample_latents .*give a conditional generator",
        ),
        ([*ARGUMENTS[:4], "--class-map", "day"], "--class-map is 'day'; give CLASS=NAME,NAME"),
        ([*ARGUMENTS[:4], "--class-map", "day=1"], r"class_map names \['day'\] and not class 'night'"),
        ([*ARGUMENTS[:4], "--modules-file", "x.json", "--layers", "main.1"], "--layers is given with --modules-file"),
        (
            [*ARGUMENTS[:4], "--modules", "9", "--layers", "main.1"],
            "9 modules asked of layer 'main.1', which has 7 channels",
        ),
    ],
)
def test_one_sentence_on_stderr(
    arguments: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments, "--classes", "day", "night", "--no-progress", "--pairs", "2", "--hybrids", "10") == 2
    assert re.search(message, capsys.readouterr().err)


def test_modules_of_every_layer(folder: Path) -> None:
    gen = module_of(folder / "users_own.py").make()
    z1, z2 = gen.sample(8, classes="day"), gen.sample(8, stream=1, classes="night")
    found = modules_by_layer(gen, z1, z2, layers=["main.1", "main.3"], n_modules=2, hybrids=21, progress=folder / "p")
    maps = cp.InfluenceMap(gen, "main.1").attribute(*({k: v[:3] for k, v in z.items()} for z in (z1, z2)))
    expected = [units for units in cp.ModuleFinder(2).fit(maps).unit_sets() if units.size]
    assert list(found["main.1"].values()) == expected
    assert sum(units.size for units in found["main.3"].values()) <= 6
    assert sorted(path.name for path in (folder / "p").iterdir()) == ["main.1-3.progress", "main.3-3.progress"]
