"""Every command with bad input: what cannot be read or written, is not installed or cannot be shown is one sentence,
with its exit status, and leaves nothing behind.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import counterfactual_probe as cp
from counterfactual_probe import cli
from counterfactual_probe.base.files import write_json
from counterfactual_probe.cli.entry import main, parser
from support import forks
from support.factories import FACTORY
from support.paths import ROOT

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
FEW, SEARCH = ["--module", "few", "-n", "1"], ["--starts", "1", "--steps", "2"]
TWO = ["--modules", "2"]
FIDELITY = [GENERATOR, *LAYER, "--units", "0", "--images", "8"]
TRAINING = ["--data", "scene", "--size", "16", "--width", "4", "--images", "8", "--batch", "4", "--steps", "1"]
# Each command that writes, with as little to do as it can have.
SHORT: dict[str, list[str]] = {
    "influence": [GENERATOR, *LAYER, "--pairs", "2"],
    "modules": [GENERATOR, *LAYER, "--pairs", "2", "--modules", "2"],
    "hybridize": [GENERATOR, *LAYER, "--units", "0,3", "-n", "2"],
    "exchange": [GENERATOR, *LAYER, "--units", "0;3", "--pairs", "2", "--controls", "0", "--images", "0"],
    "edit": [GENERATOR, *FEW, "--modules-file", "few.json"],
    "invert": [GENERATOR, "pictures/0.png", *SEARCH],
    "fidelity": [*FIDELITY, "--features", "efficientnet-lite0"],
    "invariance": [GENERATOR, "--layers", "1", "--images", "2"],
    "spectral": [GENERATOR],
    "report": [GENERATOR, "--layers", "1", "--pairs", "16", "--modules", "2"],
    "study": [GENERATOR, "--layers", "1", "--pairs", "16", "--papers-pairs", "2", *TWO, "--repetitions", "1"],
    "demo": ["--layers", "main.11", "--pairs", "16", "--hybrids", "64"],
    "robustness": ROBUSTNESS,
    "explore": [GENERATOR, "--layers", "1", "--pairs", "2"],
    "train": ["vae", *TRAINING, "--device", "cpu"],
}
# What each option that is a path reads: a command, in which PATH stands for the file or folder.
READS: dict[str, list[str]] = {
    "layers: generator": ["layers", "./PATH"],
    "influence: generator": ["influence", "./PATH", *LAYER],
    "influence: where": ["influence", *SHORT["influence"], "--where", "PATH"],
    "influence: basis": ["influence", *SHORT["influence"], "--basis", "PATH"],
    "influence: checkpoint": ["influence", *SHORT["influence"], "--checkpoint", "PATH"],
    "modules: generator": ["modules", "PATH.safetensors"],
    "modules: other": ["modules", "maps.safetensors", "--other", "PATH"],
    "modules: where": ["modules", *SHORT["modules"], "--where", "PATH"],
    "modules: basis": ["modules", *SHORT["modules"], "--basis", "PATH"],
    "hybridize: generator": ["hybridize", "./PATH", *SHORT["hybridize"][1:]],
    "hybridize: modules_file": ["hybridize", GENERATOR, "--modules-file", "PATH"],
    "hybridize: where": ["hybridize", *SHORT["hybridize"], "--where", "PATH"],
    "hybridize: basis": ["hybridize", *SHORT["hybridize"], "--basis", "PATH"],
    "edit: generator": ["edit", "./PATH", *SHORT["edit"][1:]],
    "edit: modules_file": ["edit", GENERATOR, *FEW, "--modules-file", "PATH"],
    "edit: pictures": ["edit", *SHORT["edit"], *SEARCH, "--pictures", "PATH"],
    "edit: source": ["edit", *SHORT["edit"], *SEARCH, "--source", "PATH"],
    "invert: generator": ["invert", "./PATH", "pictures"],
    "invert: pictures": ["invert", GENERATOR, "PATH", *SEARCH],
    "exchange: generator": ["exchange", "./PATH", *SHORT["exchange"][1:]],
    "exchange: modules_file": ["exchange", GENERATOR, "--modules-file", "PATH"],
    "fidelity: generator": ["fidelity", "./PATH", *SHORT["fidelity"][1:]],
    "fidelity: features": ["fidelity", *FIDELITY, "--features", "./PATH"],
    "fidelity: modules_file": ["fidelity", GENERATOR, "--modules-file", "PATH"],
    "fidelity: real": ["fidelity", *SHORT["fidelity"], "--real", "PATH"],
    "fidelity: training": ["fidelity", *SHORT["fidelity"], "--training", "PATH"],
    "invariance: generator": ["invariance", "./PATH"],
    "spectral: generator": ["spectral", "./PATH"],
    "spectral: against": ["spectral", GENERATOR, "--against", "./PATH"],
    "report: generator": ["report", "./PATH"],
    "report: pictures": ["report", "vae-faces", "--layers", "decoder.level1", "--pictures", "PATH"],
    "study: generator": ["study", "./PATH"],
    "study: pictures": ["study", "vae-faces", "--layers", "decoder.level1", "--pictures", "PATH"],
    "explore: generator": ["explore", "./PATH", "--save", "page.html"],
    "robustness: generator": ["robustness", "--generator", "./PATH", *ROBUSTNESS[2:]],
    "robustness: classifier": ["robustness", *JUDGED, "--classifier", "./PATH"],
    "robustness: modules_file": ["robustness", *ROBUSTNESS[:5], *ROBUSTNESS[7:], "--modules-file", "PATH"],
    "train: data": ["train", "vae", "--data", "PATH"],
    "train: start": ["train", *SHORT["train"], "--start", "PATH"],
    "sweep: file": ["sweep", "PATH"],
    "train: cache": ["train", "vae", *TRAINING, "--cache", "PATH"],
}
OF_THE_HUB = [what for what in READS if what.endswith(": modules_file")]
WRITES = {"out", "save"}
# Files that a command makes where there are none, and a generator that encodes no pictures, whatever they are.
MADE, ENCODES_NONE = {"influence: checkpoint", "train: cache"}, {"demo: pictures"}
KINDS = {"missing": "no-such-thing", "text": "letter.txt", "folder": "empty folder"}


@pytest.fixture
def folder(users_module: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    made = users_module("users_own", FACTORY + CONDITIONAL)
    for name in (KINDS["text"], f"{KINDS['text']}.safetensors"):
        (made / name).write_text("Dear all,\n")
    for name in (KINDS["folder"], f"{KINDS['folder']}.safetensors"):
        (made / name).mkdir()
    (made / "pictures").mkdir()
    for name in ("0.png", "1.png"):
        Image.new("RGB", (8, 8), (90, 120, 30)).save(made / "pictures" / name)
    write_json(made / "few.json", {"modules": [{"1": [0, 3]}, {"1": [1]}], "names": ["few units", "other"]})
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
    assert {*commands()} == {*SHORT, "list", "layers", "sweep"}, "a sweep's own are in tests/sweeping"
    paths = {
        f"{name}: {action.dest}"
        for name, command in commands().items()
        for action in command._actions
        if action.type is os.path.expanduser and action.dest not in WRITES
    }
    assert paths - ENCODES_NONE == {*READS} - {"fidelity: features", "spectral: against", "robustness: classifier"}


# --- what is read -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", READS)
def test_what_cannot_be_read(what: str, kind: str, folder: Path, refused: Callable[..., str]) -> None:
    if what in MADE and kind == "missing":
        pytest.skip("it is made")
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
@pytest.mark.parametrize("what", READS)
def test_what_may_not_be_read(what: str, folder: Path, refused: Callable[..., str]) -> None:
    """Whoever runs the tests, root included."""
    for link in ("mem.safetensors", "mem.npy", "mem"):
        (folder / link).symlink_to("/proc/self/mem")
    if what == "modules: other":
        cp.InfluenceMap(cp_generator(), "1").attribute(n_pairs=2).save("maps.safetensors")
    suffix = ".npy" if what.partition(": ")[2] in ("data", "pictures", "source", "real", "training") else ""
    assert "mem" in refused(*(word.replace("PATH", f"mem{suffix}") for word in READS[what]))


def test_a_name_that_is_none_and_a_file_of_weights(folder: Path, refused: Callable[..., str]) -> None:
    """The advice is for the command line, and a file's name alone is taken for a file."""
    said = refused("layers", "dcgan-facse")
    assert "nearest: 'dcgan-faces'" in said
    assert "'list' shows all, and package.module:factory opens one of your own" in said
    torch.save({"weight": torch.zeros(1)}, "checkpoint.pt")
    said = refused("layers", "checkpoint.pt")
    assert "checkpoint.pt is a file; give a folder with config.json" in said
    assert "package.module:factory on the command line" in said


# --- what is written --------------------------------------------------------------------------------


def out_option(command: str) -> str:
    return "--save" if command == "explore" else "--out"


UNWRITABLE = {"below a file": "letter.txt/results", "where the system forbids": "/sys/counterfactual-probe"}


@pytest.mark.parametrize("where", UNWRITABLE)
@pytest.mark.parametrize("command", SHORT)
def test_what_cannot_be_written(command: str, where: str, folder: Path, refused: Callable[..., str]) -> None:
    place = UNWRITABLE[where]
    if place.startswith("/sys") and not Path("/sys/kernel").exists():
        pytest.skip("there is no folder that nobody may write to")
    name = f"{place}/page.html" if command == "explore" else place
    said = refused(command, *SHORT[command], out_option(command), name)
    assert "cannot be written" in said
    assert place.partition("/results")[0] in said


@pytest.mark.parametrize("command", [name for name in SHORT if name != "demo"])  # a demo is a report of its own
def test_a_home_that_cannot_be_written(
    command: str, folder: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]
) -> None:
    """Nothing but results is written, and these where they are asked for: a file stands where the home would be."""
    for name in ("HOME", "USERPROFILE", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(folder / "letter.txt"))
    kept, page = "here", "page.html"
    name = f"{kept}/{page}" if command == "explore" else kept
    assert main([command, *SHORT[command], "--no-progress", out_option(command), name]) == 0
    assert [path for path in Path(kept).iterdir() if not path.name.endswith(".command.json")]
    assert "cannot be written" in refused(command, *SHORT[command], out_option(command), f"~/{name}")


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
    "jobs": ("submitit", ["sweep", "sweep.toml"]),
    "biggan": ("pytorch_pretrained_biggan", ["layers", str(ROOT / "unfinished/biggan-cifar10")]),
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
    Path("sweep.toml").write_text(f"command = 'spectral'\nout = 'new'\n[settings]\ngenerator = '{GENERATOR}'\n")
    Path("pipeline").mkdir()
    Path("pipeline/model_index.json").write_text(json.dumps({"_class_name": "DDPMPipeline"}))
    said = refused(*arguments)
    assert f"counterfactual-probe[{extra}]" in said


def test_a_hub_that_cannot_be_reached(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    named = {
        what: [word.replace("./PATH", "PATH").replace("PATH", "hf:user/repo") for word in words]
        for what, words in READS.items()
        if what.endswith(": generator") and what != "modules: generator"
    }
    named |= {what: [word.replace("PATH", "hf:user/repo/modules.json") for word in READS[what]] for what in OF_THE_HUB}
    code = f"""
        import time
        from counterfactual_probe.cli import main
        time.sleep = lambda _: None
        for arguments in {[*named.values(), ["list"]]!r}:
            print(main(arguments))
        """
    kept = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_CACHE": str(tmp_path / "cache")}
    said = forks.run(code, HF_ENDPOINT="http://127.0.0.1:9", **kept)
    statuses = [line for line in said.splitlines() if line.isdigit()]
    assert statuses == ["2"] * len(named) + ["0"]


# --- names and terminals ----------------------------------------------------------------------------


@pytest.fixture
def home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of somebody who writes in other letters, with files of a generator in it."""
    made = folder / "Ünïcödé 家"
    made.mkdir()
    monkeypatch.setenv("HOME", str(made))
    monkeypatch.setenv("USERPROFILE", str(made))
    np.save(made / "a mask.npy", np.ones((8, 8)))
    (made / "pictures").symlink_to(folder / "pictures")
    (made / "few.json").symlink_to(folder / "few.json")
    return made


THERE = {
    "hybridize": ["--where", "~/a mask.npy"],
    "influence": ["--checkpoint", "~/on the way"],
    "edit": ["--modules-file", "~/few.json", "--source", "~/pictures/1.png", *SEARCH],
    "train": ["--cache", "~/the cache"],
}


@pytest.mark.parametrize("command", SHORT)
def test_paths_with_spaces_letters_and_a_tilde_and_a_terminal_without_colours(
    command: str, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(*("NO_COLOR", "1") if len(command) % 2 else ("TERM", "dumb"))
    out, own = "~/my results/β → 2", home / "my results/β → 2"
    given = [word.replace("pictures/", "~/pictures/") for word in SHORT[command]]
    where = [out_option(command), f"{out}/page.html" if command == "explore" else out]
    assert main([command, *given, *THERE.get(command, []), *where]) == 0
    assert [path for path in own.iterdir() if not path.name.endswith(".command.json")]
    assert not Path("~").exists()
    captured = capsys.readouterr()
    assert str(own) in captured.out
    assert "\x1b[" not in (captured.out + captured.err).replace("\x1b[A", "")  # tqdm's, one line up
    assert not sum((home / name).exists() for name in ("on the way", "the cache")) - (command in ("influence", "train"))


def test_what_was_written_there_is_read_from_there(home: Path) -> None:
    out = "~/my results/β → 2"
    run = ["--no-progress", "--out", out]
    assert main(["influence", *SHORT["influence"], *run]) == 0
    maps = f"{out}/maps-1.safetensors"
    assert main(["modules", maps, "--modules", "2", "--other", maps, *run]) == 0
    assert main(["hybridize", GENERATOR, "--modules-file", f"{out}/modules-1.json", "-n", "2", *run]) == 0
    assert main(["train", *SHORT["train"], "--no-progress", "--out", f"{out}/model"]) == 0
    assert main(["layers", f"{out}/model"]) == 0


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


@pytest.mark.parametrize("command", SHORT)
def test_ctrl_c_while_a_generator_runs(
    command: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.nn.ConvTranspose2d, "forward", stop)
    monkeypatch.setattr(torch.nn.Conv2d, "forward", stop)
    monkeypatch.setattr(torch.fft, "fft2", stop)
    name = "new/page.html" if command == "explore" else "new"
    assert main([command, *SHORT[command], "--no-progress", out_option(command), name]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert not [path for path in Path("new").rglob("*") if path.suffix in (".html", ".safetensors", ".png", ".partial")]
