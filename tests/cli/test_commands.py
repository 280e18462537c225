"""Every command: help, an example and early checks; what is there already, and what is said in which words."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import counterfactual_probe as cp
from counterfactual_probe.base.files import write_json
from counterfactual_probe.cli.entry import main, parser
from counterfactual_probe.cli.options.output import RECORD
from support.factories import FACTORY

GENERATOR, LAYER = "users_own:make", ["--layer", "1"]
# Each command with as little to do as it can have.
SHORT: dict[str, list[str]] = {
    "influence": [GENERATOR, *LAYER, "--pairs", "2"],
    "modules": [GENERATOR, *LAYER, "--pairs", "2", "--modules", "2"],
    "hybridize": [GENERATOR, *LAYER, "--units", "0,3", "-n", "2"],
    "edit": [
        GENERATOR,
        "--module",
        "few",
        "--modules-file",
        "few.json",
        "--pictures",
        "pictures",
        "-n",
        "2",
        "--starts",
        "1",
        "--steps",
        "3",
    ],
    "exchange": [
        GENERATOR,
        *LAYER,
        *("--units", "0,3;1", "--pairs", "3", "--controls", "3", "--images", "1", "--steps", "2"),
    ],
    "invert": [GENERATOR, "pictures/0.png", "--starts", "1", "--steps", "3"],
    "invariance": [GENERATOR, "--layers", "1", "--images", "2"],
    "spectral": [GENERATOR],
    "report": [GENERATOR, "--layers", "1", "--pairs", "16", "--modules", "2"],
}


@pytest.fixture
def folder(users_module: Callable[[str, str], Path]) -> Path:
    """Of a generator, with pictures and modules for it."""
    from PIL import Image

    made = users_module("users_own", FACTORY)
    (made / "pictures").mkdir()
    for number in range(2):
        Image.new("RGB", (8, 8), (90 * number, 120, 30)).save(made / f"pictures/{number}.png")
    write_json(made / "few.json", {"modules": [{"1": [0, 3]}, {"1": [1]}], "names": ["few units", "other"]})
    return made


def commands() -> dict[str, argparse.ArgumentParser]:
    (found,) = (action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    return dict(found.choices)


def run(command: str, *more: str) -> int:
    return main([command, *SHORT[command], "--no-progress", *more])


# --- help -----------------------------------------------------------------------------------------


def test_every_option_has_help_and_every_command_an_example() -> None:
    for name, command in commands().items():
        assert f"Example: counterfactual-probe {name}" in (command.epilog or ""), name
        for action in command._actions:
            assert action.help, f"{name} {action.option_strings or action.dest}"
            if action.default not in (None, False, True, [], argparse.SUPPRESS) and action.option_strings:
                assert "default" in action.help, f"{name} {action.option_strings} does not say its default"


def test_every_example_is_a_command_that_is_understood() -> None:
    for name, command in commands().items():
        (example,) = re.findall("^Example: counterfactual-probe (.*)$", command.epilog or "", re.MULTILINE)
        arguments = [word.strip("'") for word in example.split()]
        options = parser().parse_args(arguments)
        assert callable(options.run), name


def test_completion(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("shtab")
    assert main(["--print-completion", "bash"]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in commands())
    assert "--normalise" in script
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["--print-completion", "zsh"]) == 2
    assert "needs shtab; install counterfactual-probe[completion]" in capsys.readouterr().err


# --- what there is --------------------------------------------------------------------------------


def test_layers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generator = cp.load("dcgan-faces-small")
    assert main(["layers", "dcgan-faces-small"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["layer", "channels", "size", "calls"]
    assert [line.split()[0] for line in lines] == list(generator.layers)
    info = generator.layer(next(iter(generator.layers)))
    assert lines[0].split() == [info.name, str(info.channels), "×".join(map(str, info.size)), "1"]
    assert main(["layers", "dcgan-faces-small", "--json"]) == 0
    records = json.loads(capsys.readouterr().out)
    assert records[0] == {
        "name": info.name,
        "channels": info.channels,
        "size": list(info.size),
        "axes": info.axes,
        "calls": 1,
    }
    assert len(records) == len(lines)


def test_list_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "dcgan*", "--json"]) == 0
    names = [record["name"] for record in json.loads(capsys.readouterr().out)]
    assert names == cp.available("dcgan*")
    assert main(["list", "dcgan-faces", "--json", "--verbose"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert "DigiFace-1M" in record["card"]
    assert main(["list", "nothing*", "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == []


# --- options of Python's functions ----------------------------------------------------------------


def test_maps_for_every_kind_of_features(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("USERPROFILE", str(folder))
    more = ["--normalise", "pair", "--components", "4", "--blocks", "2", "--checkpoint", "~/progress", "--pairs", "8"]
    assert run("influence", *more, "--out", "maps") == 0
    maps = cp.InfluenceMaps.load("maps/maps-1.safetensors")
    generator = cp.InfluenceMap(_own(folder), "1")
    direct = generator.attribute(n_pairs=8, normalise="pair", components=4, blocks=2)
    assert all((getattr(maps, name) == getattr(direct, name)).all() for name in ("maps", "block_sums", "normalised"))
    assert (folder / "progress").exists()
    for features in ("bits", "l2", "pca"):
        given = ["--modules", "2", "--features", features, "--out", features]
        assert main(["modules", "maps/maps-1.safetensors", *given]) == 0
    assert run("influence", "--precision", "bf16-diff", "--out", "half") == 0
    assert "precision" in cp.InfluenceMaps.load("half/maps-1.safetensors").provenance
    assert run("influence", "--map-size", "2", "--out", "small") == 0
    assert cp.InfluenceMaps.load("small/maps-1.safetensors").maps.shape[1:] == (2, 2)


def _own(folder: Path) -> cp.GeneratorAdapter:
    from counterfactual_probe.cli.common import open_generator

    return open_generator(GENERATOR, None)


# --- before anything long -------------------------------------------------------------------------

NUMBERS = {
    "influence": ["--pairs", "--blocks", "--components", "--heads", "--map-size"],
    "modules": ["--modules", "--pairs"],
    "hybridize": ["-n", "--heads"],
    "edit": ["-n", "--starts", "--steps"],
    "exchange": ["--pairs", "--steps"],
    "invert": ["-n", "--starts", "--steps"],
    "fidelity": ["--images", "--resamples"],
    "invariance": ["--images", "--levels"],
    "report": ["--modules", "--pairs", "--hybrids"],
    "robustness": ["--modules", "--hybrids", "--pairs"],
    "spectral": ["--activations", "--remove", "--draws"],
    "study": ["--papers-pairs"],
    "train": ["--size", "--images", "--latent", "--width", "--batch", "--steps"],
}


@pytest.mark.parametrize("value", ["0", "-3", "2.5", "many", "1e3", ""])
def test_numbers_are_read_by_every_option(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command, options in NUMBERS.items():
        for option in options:
            assert main([command, "a", f"{option}={value}" if option.startswith("--") else f"{option}{value}"]) == 2
            said = capsys.readouterr().err
            if value or option.startswith("--"):
                assert re.match(rf"counterfactual-probe: argument .*{option}.*: it is ", said), said
            assert said.count("\n") == 1
            assert "Python" not in said


@pytest.mark.parametrize(
    ("command", "wrong", "said"),
    [
        ("influence", ["--tolerance", "nan"], "argument --tolerance: it is 'nan'; give a number above 0"),
        ("influence", ["--strength", "inf"], "argument --strength: it is 'inf'; give a number"),
        ("influence", ["--precision", "half"], "argument --precision: invalid choice: 'half'"),
        ("influence", ["--where", "no-mask.npy"], "no-mask.npy"),
        ("influence", ["--layer", "99"], "layer '99' is not in this generator"),
        ("hybridize", ["--layer", "99"], "layer '99' is not in this generator"),
        ("modules", ["--layer", "99"], "layer '99' is not in this generator"),
        ("invariance", ["--layers", "1,,3"], "give names separated by commas"),
        ("invariance", ["--layers", "99"], "layer '99' is not in this generator"),
        ("report", ["--layers", "99"], "layer '99' is not in this generator"),
        ("spectral", ["--pair", "1"], "give two convolutions"),
        ("exchange", ["--layer", "99"], "layer '99' is not in this generator"),
        ("exchange", ["--units", "0,3;3"], "modules 'set 1' and 'set 2' share channel 3 of layer '1'"),
        ("exchange", ["--pairs", "1"], "n_pairs is 1, and one pair has no standard error; give at least 2"),
        ("exchange", ["--controls", "900"], "random sets are asked for"),
        ("exchange", ["--controls", "-1"], "argument --controls: it is '-1'; give a whole number from 0 up"),
        ("edit", ["--module", "none"], "no module is called 'none'; there are 'few units', 'other'"),
        ("edit", ["--modules-file", "none.json"], "none.json cannot be read"),
        ("edit", ["--source", "none"], "there is no folder or zip none"),
        ("edit", ["--strength", "much"], "argument --strength: it is 'much'; give a number"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_no_file(
    folder: Path, command: str, wrong: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(Path().rglob("*"))
    assert run(command, *wrong, "--out", "new/folder") == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.startswith("counterfactual-probe: ")
    assert error.count("\n") == 1
    assert [path for path in sorted(Path().rglob("*")) if "__pycache__" not in path.parts] == before


@pytest.mark.parametrize("command", SHORT)
def test_a_folder_that_cannot_be_written_is_said_before_the_run(
    folder: Path, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("blocked").write_text("a file, not a folder")

    def ran(*_given: Any, **_options: Any) -> Any:
        raise AssertionError("the run began")

    for owner, name in ((cp.InfluenceMap, "attribute"), (cp.Hybridizer, "hybridize"), (cp.StretchTest, "measure")):
        monkeypatch.setattr(owner, name, ran)
    monkeypatch.setattr(cp.SpectralDependency, "table", ran)
    assert run(command, "--out", "blocked/results") == 2
    assert "cannot be written" in capsys.readouterr().err


# --- results that are there -----------------------------------------------------------------------


@pytest.mark.parametrize("command", SHORT)
@pytest.mark.usefixtures("undrawn")
def test_results_of_other_arguments_are_not_replaced(
    folder: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command, "--out", "own") == 0
    before = dict(_files("own"))
    assert any(name.endswith(RECORD) for name in before)
    assert run(command, "--out", "own") == 0, "the same command may run again"
    assert dict(_files("own")) == before
    capsys.readouterr()
    assert run(command, "--out", "own", "--seed", "1") == 2
    assert "is there already, made with --seed 0, not 1; give --force to replace it" in capsys.readouterr().err
    assert dict(_files("own")) == before
    assert run(command, "--out", "own", "--seed", "1", "--force") == 0
    assert dict(_files("own")) != before
    assert run(command, "--out", "own", "--seed", "1") == 0
    for record in Path("own").glob(f"*{RECORD}"):
        record.unlink()
    capsys.readouterr()
    assert run(command, "--out", "own", "--seed", "1") == 2
    assert "is there already, and nothing beside it says how it was made" in capsys.readouterr().err


def test_a_forced_run_that_fails_leaves_nothing_that_says_what_is_not_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("influence", "--out", "own") == 0
    before = dict(_files("own"))

    def fails(*_given: Any, **_options: Any) -> Any:
        raise cp.ProbeError("for a test")

    with monkeypatch.context() as patched:
        patched.setattr(cp.InfluenceMap, "attribute", fails)
        assert run("influence", "--out", "own", "--seed", "1", "--force") == 2
    assert dict(_files("own")) == {name: content for name, content in before.items() if not name.endswith(RECORD)}


def _files(folder: str) -> Iterator[tuple[str, bytes]]:
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file():
            yield str(path), path.read_bytes()


# --- pages and pipes ------------------------------------------------------------------------------


def test_many_pairs_make_a_picture_of_sane_width(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    assert run("hybridize", "-n", "100", "--out", "many") == 0
    assert "the picture shows the first 16 of 100 pairs" in capsys.readouterr().out
    assert cp.Hybrids.load("many/hybrids-1.safetensors").images.shape[1] == 100
    with Image.open("many/hybrids-1.png") as picture:
        assert picture.width < 3000


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no disk that is full")
def test_pipes_and_full_disks_end_without_a_traceback() -> None:
    command = [sys.executable, "-m", "counterfactual_probe", "list"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "No space left" in done.stderr
    shell = f"{' '.join(command)} --verbose | head -n 1"
    piped = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)
    assert piped.stderr == ""
    assert piped.stdout.count("\n") == 1


# --- edits ----------------------------------------------------------------------------------------


def test_edit_and_invert_write_what_python_gives(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from counterfactual_probe.editing.pictures import pictures_for

    generator = _own(folder)
    pictures = pictures_for(generator, "pictures", most=8)
    assert run("invert", "--out", "inverted") == 0
    said = capsys.readouterr().out
    assert "1 of 1 picture not reached" in said
    found = cp.Inversion.load("inverted/inversion.safetensors")
    with pytest.warns(UserWarning, match="not reached"):
        assert (found.latents == cp.invert(generator, pictures[:1], starts=1, steps=3).latents).all()
    assert run("edit", "--strength", "0.5", "--out", "edited") == 0
    said = capsys.readouterr()
    assert "Edited('few units', 2 images)" in said.out
    assert "NotReached" not in said.err
    edited = cp.Edited.load("edited/edited.safetensors")
    source = generator.sample(2, seed=0, stream=1)
    with pytest.warns(UserWarning, match="not reached"):
        direct = generator.edit(pictures, "few", source=source, modules="few.json", strength=0.5, starts=1, steps=3)
    assert (edited.images == direct.images).all()
    latents = [GENERATOR, "--module", "other", "--modules-file", "few.json", "-n", "3", "--no-progress"]
    assert main(["edit", *latents, "--out", "of-latents"]) == 0
    assert cp.Edited.load("of-latents/edited.safetensors").pictures is None
    assert main(["edit", *latents, "--source", "pictures/1.png", "--steps", "2", "--out", "one-source"]) == 0
    assert len(cp.Edited.load("one-source/edited.safetensors")) == 3


# --- exchanges --------------------------------------------------------------------------------------


def test_exchange_writes_what_python_gives(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("exchange", "--out", "exchanged") == 0
    assert "separation" in capsys.readouterr().out
    found = cp.Exchanged.load("exchanged/exchange-1.safetensors")
    modules = {"set 1": {"1": [0, 3]}, "set 2": {"1": [1]}}
    direct = cp.exchange(_own(folder), modules, n_pairs=3, controls=3, images=1, steps=2)
    assert str(found) == str(direct)
    named = {path.name for path in Path("exchanged").iterdir()}
    assert {"exchange-1.csv", "exchange-1.json", "exchange-1.png", "interaction-1.png", "nearest-1.png"} <= named
    given = ["--modules-file", "few.json", "--pairs", "2", "--controls", "0", "--images", "0", "--out", "of-file"]
    assert main(["exchange", GENERATOR, *given, "--no-progress"]) == 0
    of_file = cp.Exchanged.load("of-file/exchange-1.safetensors")
    assert of_file.names == ["few units", "other"]
    assert of_file.groups is None
    assert not Path("of-file/nearest-1.png").exists()
