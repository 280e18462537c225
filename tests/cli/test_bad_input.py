"""Every command with bad input: what cannot be read or written, is not installed or cannot be shown is one sentence,
with its exit status, and leaves nothing behind.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import counterfactual_probe as cp
from counterfactual_probe import cli
from counterfactual_probe.cli.entry import main, parser
from support.factories import FACTORY

CONDITIONAL = """
class Conditional(torch.nn.Module):
    def __init__(self, module):
        super().__init__()
        self.main = module

    def forward(self, z, y):
        return self.main(z)

def classes():
    def draw(n, rng, classes="day"):
        return {"z": torch.randn(n, 4, 1, 1, generator=rng), "y": torch.full((n,), ["day", "night"].index(classes))}
    return cp.wrap(Conditional(make().module), draw, name="classes")

def judge():
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 2))
    return cp.Classifier(module, cp.Preprocessing((8, 8)), class_names=["day", "night"])
"""
GENERATOR, LAYER = "users_own:make", ["--layer", "1"]
JUDGED = ["--generator", "users_own:classes", "--classes", "day", "night", "--layers", "main.1"]
ROBUSTNESS = [*JUDGED, "--classifier", "users_own:judge", "--pairs", "2"]
# Each command that writes, with as little to do as it can have.
SHORT: dict[str, list[str]] = {
    "influence": [GENERATOR, *LAYER, "--pairs", "2"],
    "modules": [GENERATOR, *LAYER, "--pairs", "2", "--modules", "2"],
    "hybridize": [GENERATOR, *LAYER, "--units", "0,3", "-n", "2"],
    "exchange": [GENERATOR, *LAYER, "--units", "0;3", "--pairs", "2", "--controls", "0", "--images", "0"],
    "fidelity": [GENERATOR, *LAYER, "--units", "0", "--images", "8", "--features", "users"],
    "invariance": [GENERATOR, "--layers", "1", "--images", "2"],
    "spectral": [GENERATOR],
    "report": [GENERATOR, "--layers", "1", "--pairs", "16", "--modules", "2"],
    "study": [GENERATOR, "--layers", "1", "--pairs", "16", "--modules", "2"],
    "demo": ["--layers", "main.11", "--pairs", "16"],
    "robustness": ROBUSTNESS,
    "explore": [GENERATOR, "--layers", "1", "--pairs", "2"],
    "train": [
        "vae",
        "--data",
        "scene",
        "--size",
        "16",
        "--width",
        "4",
        "--images",
        "8",
        "--batch",
        "4",
        "--steps",
        "1",
    ],
}
# What a command reads: its arguments, in which PATH stands for the file or folder.
READS: dict[str, list[str]] = {
    "layers": ["layers", "./PATH"],
    "influence: generator": ["influence", "./PATH", *LAYER],
    "influence: where": ["influence", *SHORT["influence"], "--where", "PATH"],
    "influence: basis": ["influence", *SHORT["influence"], "--basis", "PATH"],
    "modules: maps": ["modules", "PATH.safetensors"],
    "modules: other": ["modules", "maps.safetensors", "--other", "PATH"],
    "hybridize: modules": ["hybridize", GENERATOR, "--modules-file", "PATH"],
    "hybridize: where": ["hybridize", *SHORT["hybridize"], "--where", "PATH"],
    "exchange: modules": ["exchange", GENERATOR, "--modules-file", "PATH"],
    "fidelity: features": ["fidelity", *SHORT["fidelity"][:-1], "./PATH"],
    "fidelity: modules": ["fidelity", GENERATOR, "--modules-file", "PATH"],
    "invariance: generator": ["invariance", "./PATH"],
    "spectral: generator": ["spectral", "./PATH"],
    "spectral: against": ["spectral", GENERATOR, "--against", "./PATH"],
    "report: generator": ["report", "./PATH"],
    "study: generator": ["study", "./PATH"],
    "explore: generator": ["explore", "./PATH", "--save", "page.html"],
    "robustness: generator": ["robustness", "--generator", "./PATH", *ROBUSTNESS[2:]],
    "robustness: classifier": ["robustness", *JUDGED, "--classifier", "./PATH"],
    "robustness: modules": ["robustness", *ROBUSTNESS[:5], *ROBUSTNESS[7:], "--modules-file", "PATH"],
    "train: data": ["train", "vae", "--data", "PATH"],
}
ELSEWHERE = {"edit", "invert"}  # whose own tests do the same
KINDS = {"missing": "no-such-thing", "text": "letter.txt", "folder": "empty folder"}


@pytest.fixture
def folder(users_module: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    made = users_module("users_own", FACTORY + CONDITIONAL)
    for name in (KINDS["text"], f"{KINDS['text']}.safetensors"):
        (made / name).write_text("Dear all,\n")
    for name in (KINDS["folder"], f"{KINDS['folder']}.safetensors"):
        (made / name).mkdir()
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return made


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must be refused, in one sentence and with nothing written, and returns the sentence."""

    def run(*arguments: str, status: int = 2) -> str:
        before = sorted(Path().rglob("*"))
        capsys.readouterr()
        assert main(list(arguments)) == status, arguments
        captured = capsys.readouterr()
        said = captured.err
        assert captured.out == ""
        assert said.startswith("counterfactual-probe: "), said
        assert said.count("\n") == 1, said
        assert "Traceback" not in said
        assert sorted(Path().rglob("*")) == before
        return said

    return run


def commands() -> dict[str, argparse.ArgumentParser]:
    (found,) = (action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    return dict(found.choices)


def test_every_command_and_every_path_is_tried() -> None:
    assert {*commands()} - {*SHORT, "list", "layers"} <= ELSEWHERE
    assert {name.partition(":")[0] for name in READS} == {*SHORT, "layers"} - {"demo"}


# --- what is read -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", READS)
def test_what_cannot_be_read(what: str, kind: str, folder: Path, refused: Callable[..., str]) -> None:
    if what == "modules: other":
        cp.InfluenceMap(cp_generator(), "1").attribute(n_pairs=2).save("maps.safetensors")
    arguments = [word.replace("PATH", KINDS[kind]) for word in READS[what]]
    said = refused(*arguments)
    assert KINDS[kind] in said
    assert ";" in said or "(" in said, "a sentence says what to do, or why"


def cp_generator() -> cp.GeneratorAdapter:
    from counterfactual_probe.cli.common import open_generator

    return open_generator(GENERATOR, None)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="there is no file that nobody may read")
@pytest.mark.parametrize("what", ["hybridize: where", "hybridize: modules", "modules: maps", "train: data"])
def test_what_may_not_be_read(what: str, folder: Path, refused: Callable[..., str]) -> None:
    """Whoever runs the tests, root included."""
    for link in ("mem.safetensors", "mem.npy", "mem"):
        (folder / link).symlink_to("/proc/self/mem")
    suffix = ".npy" if what == "train: data" else ""
    assert "mem" in refused(*(word.replace("PATH", f"mem{suffix}") for word in READS[what]))


# --- what is written --------------------------------------------------------------------------------


def out_option(command: str) -> str:
    return "--save" if command == "explore" else "--out"


UNWRITABLE = {"below a file": "letter.txt/results", "where the system forbids": "/sys/counterfactual-probe"}


@pytest.mark.parametrize("where", UNWRITABLE)
@pytest.mark.parametrize("command", [name for name in SHORT if name != "fidelity"])
def test_what_cannot_be_written(command: str, where: str, folder: Path, refused: Callable[..., str]) -> None:
    place = UNWRITABLE[where]
    if place.startswith("/sys") and not Path("/sys/kernel").exists():
        pytest.skip("there is no folder that nobody may write to")
    name = f"{place}/page.html" if command == "explore" else place
    said = refused(command, *SHORT[command], out_option(command), name)
    assert "cannot be written" in said
    assert place.partition("/results")[0] in said


def test_a_home_that_cannot_be_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]
) -> None:
    monkeypatch.setenv("HOME", str(folder / "letter.txt"))
    monkeypatch.setenv("USERPROFILE", str(folder / "letter.txt"))
    assert main(["influence", *SHORT["influence"], "--no-progress", "--out", "here"]) == 0
    assert "cannot be written" in refused("influence", *SHORT["influence"], "--out", "~/out")


# --- what is not installed --------------------------------------------------------------------------

MISSING: dict[str, tuple[str, list[str]]] = {
    "robustness": ("timm", ["robustness", *JUDGED, "--classifier", "resnet18"]),
    "fidelity": ("torch_fidelity", ["fidelity", *SHORT["fidelity"][:-1], "inception"]),
    "explore": ("uvicorn", ["explore", GENERATOR]),
    "hub": ("huggingface_hub", ["layers", "hf:user/repo"]),
    "diffusion": ("diffusers", ["layers", "pipeline"]),
    "train": ("accelerate", ["train", *SHORT["train"]]),
    "shapes3d": ("h5py", ["train", "vae", "--data", "shapes.h5"]),
    "completion": ("shtab", ["--print-completion", "bash"]),
}


@pytest.mark.parametrize("extra", MISSING)
def test_a_package_that_is_missing(
    extra: str, folder: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]
) -> None:
    package, arguments = MISSING[extra]
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    Path("shapes.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    Path("pipeline").mkdir()
    Path("pipeline/model_index.json").write_text(json.dumps({"_class_name": "DDPMPipeline"}))
    said = refused(*arguments)
    assert f"counterfactual-probe[{extra}]" in said


# --- names and terminals ----------------------------------------------------------------------------


def test_paths_with_spaces_letters_and_a_tilde(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = folder / "Ünïcödé 家"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    out = "~/my results/β → 2"
    run = ["--no-progress", "--out", out]
    mask = home / "a mask.npy"
    mask.parent.mkdir()
    np.save(mask, np.ones((8, 8)))
    assert main(["influence", *SHORT["influence"], "--checkpoint", "~/on the way", *run]) == 0
    maps, own = f"{out}/maps-1.safetensors", home / "my results/β → 2"
    assert main(["modules", maps, "--modules", "2", "--other", maps, *run]) == 0
    modules = ["--modules-file", f"{out}/modules-1.json"]
    assert main(["hybridize", GENERATOR, *modules, "--where", "~/a mask.npy", "-n", "2", *run]) == 0
    assert main(["report", *SHORT["report"], *run]) == 0
    assert main(["explore", *SHORT["explore"], "--no-progress", "--save", f"{out}/page.html"]) == 0
    assert main(["train", *SHORT["train"], "--device", "cpu", "--no-progress", "--out", f"{out}/model"]) == 0
    assert main(["layers", f"{out}/model"]) == 0
    assert {"maps-1.safetensors", "modules-1.json", "hybrids-1.png", "report.html", "page.html", "model"} <= {
        path.name for path in own.iterdir()
    }
    assert (home / "on the way").exists()
    assert not Path("~").exists()
    assert str(own) in capsys.readouterr().out


def narrow_terminal(encoding: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
@pytest.mark.parametrize("arguments", [[], ["list", "--verbose"], ["layers", "dcgan-faces-small"], ["list", "α*"]])
def test_terminals_with_few_letters(arguments: list[str], encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows' consoles, and ``PYTHONIOENCODING=ascii``."""
    streams = {name: narrow_terminal(encoding) for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    status = main(arguments or ["--help"])
    assert status == (1 if arguments[1:] == ["α*"] else 0)
    written = {name: stream.buffer.getvalue() for name, stream in streams.items()}  # type: ignore[attr-defined]
    assert written["stderr" if status else "stdout"]
    for command in commands() if not arguments else ():
        assert main([command, "--help"]) == 0
        assert main([command, "--α"]) == 2


@pytest.mark.parametrize("setting", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_terminals_without_colours(
    setting: dict[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in setting.items():
        monkeypatch.setenv(name, value)
    assert main(["influence", *SHORT["influence"]]) == 0
    assert main(["influence", "--help"]) == 0
    assert main(["influence"]) == 2
    captured = capsys.readouterr()
    assert "\x1b[" not in (captured.out + captured.err).replace("\x1b[A", "")  # tqdm's, one line up


# --- stops ------------------------------------------------------------------------------------------


@pytest.fixture
def stopped_while_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing the commands is interrupted, as by Ctrl-C right after Enter."""

    class Stop:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "counterfactual_probe.cli.entry":
                raise KeyboardInterrupt

    entry = "counterfactual_probe.cli.entry"
    monkeypatch.delitem(sys.modules, entry)
    monkeypatch.setattr(sys, "meta_path", [Stop(), *sys.meta_path])


@pytest.mark.usefixtures("stopped_while_it_starts")
def test_ctrl_c_while_the_program_starts(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list"]) == 130
    assert capsys.readouterr() == ("", "counterfactual-probe: interrupted\n")


@pytest.mark.parametrize("command", [name for name in SHORT if name not in ("fidelity", "demo", "study")])
def test_ctrl_c_while_a_generator_runs(
    command: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.nn.ConvTranspose2d, "forward", stop)
    monkeypatch.setattr(torch.nn.Conv2d, "forward", stop)
    monkeypatch.setattr(torch, "fft", None)
    name = "new/page.html" if command == "explore" else "new"
    assert main([command, *SHORT[command], "--no-progress", out_option(command), name]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert not [path for path in Path("new").rglob("*") if path.suffix in (".html", ".safetensors", ".png", ".partial")]
