"""The command line, on the pretrained generator and on one that a user's factory makes."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch

import counterfactual_probe as cp
from counterfactual_probe.cli import entry as cli
from counterfactual_probe.cli.common import open_generator, show
from counterfactual_probe.registry import pretrained as registry
from counterfactual_probe.registry.naming import numbered_names, shown_regions
from counterfactual_probe.registry.regions import generic_regions
from support.factories import FACTORY

MORE = """
import sys

def not_wrapped():
    return torch.nn.Identity()

def breaks():
    raise KeyError("no weights here")

def helped():
    import users_helper  # lies beside this file, and is imported only now
    sys.path.insert(0, "put in front by the factory")
    return make()

def twice():
    shared = torch.nn.ReLU()
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.ConvTranspose2d(4, 7, 4), shared, torch.nn.ConvTranspose2d(7, 6, 4, 2, 1),
                                 shared, torch.nn.ConvTranspose2d(6, 3, 4, 2, 1), torch.nn.Tanh())
    return cp.wrap(module, lambda n, rng: torch.randn(n, 4, 1, 1, generator=rng), name="twice")
"""


@pytest.fixture
def folder(users_module: Callable[[str, str], Path]) -> Path:
    users_module("users_helper", "")
    users_module("users_broken", "1 / 0")
    return users_module("users_own", FACTORY + MORE)


def run(*arguments: str) -> int:
    return cli.main(list(arguments))


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list") == 0
    assert capsys.readouterr().out.split() == cp.available()
    assert run("list", "*faces", "--verbose") == 0
    text = capsys.readouterr().out
    assert "DigiFace-1M" in text
    assert "MIT" in text
    assert run("list", "no such thing") == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "no generator matches 'no such thing'; 'counterfactual-probe list' lists all" in captured.err


@pytest.mark.parametrize(
    "raised", ["1 / 0", "raise SystemExit(3)", "import no_such_module", "class E(BaseException): ...\nraise E('a\\nb')"]
)
def test_a_package_that_cannot_be_imported_is_listed_with_its_reason(
    raised: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "users_plugin.py").write_text(raised)
    monkeypatch.syspath_prepend(str(folder))
    given = [("own", "users_plugin:OWN"), ("faces", "counterfactual_probe.adapters.cards.dcgan:FACES")]
    monkeypatch.setattr(registry, "entry_points", lambda group: [EntryPoint(*pair, group) for pair in given])
    assert run("list") == 0
    assert capsys.readouterr().out.split() == ["faces", "own"]
    assert run("list", "--verbose") == 0
    faces, _, own = capsys.readouterr().out.partition("\nown: ")
    assert "DigiFace-1M" in faces
    message = (
        r"cannot be opened\n  reason: generator 'own' of 'users_plugin:OWN' cannot be imported \(\w+: .*; reinstall"
    )
    assert re.match(message, own)
    with pytest.raises(cp.ProbeError, match="cannot be imported"):
        cp.load("own")


def test_a_name_of_two_packages_is_listed_with_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [("a", "one:A"), ("b", "one:B"), ("b", "two:B")]
    monkeypatch.setattr(registry, "entry_points", lambda group: [EntryPoint(*pair, group) for pair in given])
    assert run("list") == 0
    said = "two packages register the generator 'b' ('one:B' and 'two:B'); uninstall one of them"
    assert capsys.readouterr().out == f"a\nb: {said}\n"
    assert run("list", "--verbose") == 0
    assert f"b: cannot be opened\n  reason: {said}\n" in capsys.readouterr().out


class Unwritable(io.StringIO):
    name = "<stdout>"

    def __init__(self, number: int) -> None:
        super().__init__()
        self.error = OSError(number, os.strerror(number))

    def write(self, _: str) -> int:
        raise self.error


@pytest.mark.parametrize(("number", "status", "says"), [(errno.EPIPE, 141, ""), (errno.ENOSPC, 2, "No space left")])
def test_output_that_cannot_be_written(
    number: int, status: int, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Into ``head``, which has read enough, and onto a full disk."""
    monkeypatch.setattr(sys, "stdout", Unwritable(number))
    assert run("list") == status
    said = capsys.readouterr().err
    assert says in said
    assert bool(said) == bool(says)
    monkeypatch.setattr(sys, "stderr", Unwritable(errno.ENOSPC))
    assert run("influence", "no-such-generator", "--layer", "0") == 2


def test_ctrl_c_while_a_package_is_imported(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "users_plugin.py").write_text("raise KeyboardInterrupt")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(registry, "entry_points", lambda group: [EntryPoint("own", "users_plugin:OWN", group)])
    assert run("list", "--verbose") == 130
    assert capsys.readouterr() == ("", "counterfactual-probe: interrupted\n")


@pytest.mark.parametrize("raised", ["1 / 0", "raise SystemExit(3)", "raise GeneratorExit", "return None.nothing"])
def test_a_package_whose_entry_fails_is_listed_with_its_reason(
    raised: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "users_plugin.py").write_text(
        f"""import counterfactual_probe as cp
class Own(cp.PretrainedGenerator):
    def card(self):
        {raised}
def load(device):
    {raised}
OWN = Own("own", "s", "t", "l", "s", "i", load)
"""
    )
    monkeypatch.syspath_prepend(str(folder))
    given = [("own", "users_plugin:OWN"), ("faces", "counterfactual_probe.adapters.cards.dcgan:FACES")]
    monkeypatch.setattr(registry, "entry_points", lambda group: [EntryPoint(*pair, group) for pair in given])
    assert run("list", "--verbose") == 0
    printed = capsys.readouterr().out
    assert "DigiFace-1M" in printed
    assert re.search(
        r"own: cannot be opened\n  reason: generator 'own' failed \(\w+: .*\); ask whoever made it", printed
    )
    with pytest.raises(cp.ProbeError, match=r"generator 'own' cannot be loaded \(\w+: .*; ask whoever made it"):
        cp.load("own")


def test_names_of_packages_do_not_drive_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name, value = "\x1b[2Jown\u202e\udce9", "counterfactual_probe.adapters.cards.dcgan:FACES"
    monkeypatch.setattr(registry, "entry_points", lambda group: [EntryPoint(name, value, group)])
    assert run("list") == 0
    assert capsys.readouterr().out == "\\x1b[2Jown\\u202e\\udce9\n"
    assert run("influence", "\x1b[2J", "--layer", "1") == 2
    assert run("hybridize", "users\x9b_own:make") == 2
    assert run("influence", "a", "--layer", "1", "\x1b]0;title\x07") == 2
    assert not set(capsys.readouterr().err) & set("\x1b\x9b\x07")


def test_a_terminal_without_these_letters_gets_their_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", narrow)
    show("main.8 → β")
    assert narrow.buffer.getvalue() == b"main.8 \\u2192 \\u03b2\n"  # type: ignore[attr-defined]


def test_influence_then_modules_then_hybrids(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("influence", "users_own:make", "--layer", "1", "--pairs", "6", "--out", "a") == 0
    captured = capsys.readouterr()
    assert "influence maps" in captured.err
    assert captured.out.split() == ["a/maps-1.safetensors", "a/maps-1.png"]
    maps = cp.InfluenceMaps.load("a/maps-1.safetensors")
    assert maps.provenance["generator"] == "mine"
    assert run("modules", "a/maps-1.safetensors", "--modules", "2", "--out", "b") == 0
    modules = json.loads(Path("b/modules-1.json").read_text())
    finder = cp.ModuleFinder(2).fit(maps)
    assert modules["labels"] == finder.labels_.tolist()
    assert modules["shows"] == [one.name for one in shown_regions(finder.templates_, generic_regions(8, 8))]
    printed = capsys.readouterr().out
    assert "unknown: give --other" in printed
    for name, units in zip(numbered_names(modules["shows"]), finder.unit_sets(), strict=True):
        assert f"{name}: {units.size} channel" in printed
    assert run("influence", "users_own:make", "--layer", "1", "--pairs", "6", "--seed", "1", "--out", "a2") == 0
    other = ["--other", "a2/maps-1.safetensors"]
    capsys.readouterr()
    assert run("modules", "a/maps-1.safetensors", "--modules", "2", "--out", "b", "--force", *other) == 0
    second = cp.InfluenceMaps.load("a2/maps-1.safetensors")
    ari = cp.ModuleFinder(2).stability(maps, n_modules=2, repetitions=1, other=second).ari
    assert ari is not None
    assert f"(adjusted Rand index {ari[0]:.2f})" in capsys.readouterr().out
    assert json.loads(Path("b/modules-1.json").read_text())["ari_between_draws"] == ari[0]
    assert run("hybridize", "users_own:make", "--modules-file", "b/modules-1.json", "-n", "3", "--out", "c") == 0
    hybrids = cp.Hybrids.load("c/hybrids-1.safetensors")
    assert hybrids.images.shape == (2, 3, 3, 8, 8)
    assert "adjusted Rand index" in capsys.readouterr().out
    assert Path("c/hybrids-1.png").read_bytes().startswith(b"\x89PNG")


def test_influence_to_a_tolerance(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["influence", "users_own:make", "--layer", "1", "--pairs", "32", "--tolerance", "0.5", "--no-progress"]
    assert run(*arguments, "--out", "t") == 0
    maps = cp.InfluenceMaps.load("t/maps-1.safetensors")
    assert f"{len(maps) - len(maps.missed)} of 7 maps reached the tolerance of 0.5" in capsys.readouterr().out
    assert (maps.n_pairs == 16).any()


def test_no_progress_leaves_stderr_empty(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("modules", "users_own:make", "--layer", "1", "--pairs", "4", "--no-progress") == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "adjusted Rand index" in captured.out, "modules are never shown without their stability between draws"


def test_hybridize_by_channels(folder: Path) -> None:
    arguments = ["hybridize", "users_own:make", "--layer", "1", "--units", "0,3;5", "-n", "2", "--out", "d"]
    assert run(*arguments) == 0
    hybrids = cp.Hybrids.load("d/hybrids-1.safetensors")
    assert [dict(units) for units in hybrids.units] == [{"1": (0, 3)}, {"1": (5,)}]
    assert run(*arguments[:-1], "e", "--seed", "3") == 0
    assert not torch.equal(cp.Hybrids.load("e/hybrids-1.safetensors").images, hybrids.images)


def test_report_of_a_users_generator(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run("report", "users_own:make", "--pairs", "16", "--modules", "2", "--out", "r")
    assert code == 0
    printed = capsys.readouterr().out
    assert "report:  r/report.html" in printed
    assert "reproducible (" in printed
    assert "The modules of mine" in Path("r/report.html").read_text()


def test_the_study_adds_the_papers_chapters(folder: Path) -> None:
    few = ["--pairs", "16", "--papers-pairs", "4", "--repetitions", "1", "--modules", "2"]
    assert run("study", "users_own:make", *few, "--no-progress", "--out", "r") == 0
    page = Path("r/report.html").read_text()
    assert "<h2>The papers' study: layer 1</h2>" in page.replace("&#39;", "'")
    assert Path("r/papers-stability-1-kmeans.safetensors").is_file()
    assert Path("r/modules-1.json").is_file()
    assert "refresh" not in page.partition("<body")[0]


def test_demo_on_one_layer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "demo"
    arguments = ["demo", "--layers", "main.11", "--pairs", "16", "--out", str(out)]
    assert run(*arguments) == 0
    captured = capsys.readouterr()
    assert f"report:  {out / 'report.html'}" in captured.out
    assert "reproducible (" in captured.out
    assert f"open {out / 'report.html'} in a browser" in captured.err
    assert "DigiFace-1M" in (out / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["influence", "dcgan-facse", "--layer", "1"], "nearest: 'dcgan-faces'"),
        (["influence", "dcgan-faces", "--layer", "main.88"], "layer 'main.88' is not in this generator"),
        (["influence", "users_own:nothing", "--layer", "1"], "cannot be imported"),
        (
            ["influence", "users_own:not_wrapped", "--layer", "1"],
            "returned a Identity; let the factory return cp.wrap",
        ),
        (["influence", "users_own:make", "--layer", "1", "--device", "cuda:7"], "--device is cuda:7"),
        (["influence", "users_own:make", "--layer", "1", "--device", "gpu"], "--device is gpu, which cannot be used"),
        (["influence", "users_own:make", "--layer", "1", "--device", "meta"], "on cpu and --device is meta"),
        (
            ["influence", "users_own:breaks", "--layer", "1"],
            "the factory 'users_own:breaks' raised KeyError: 'no weights here'; call it in Python by itself",
        ),
        (["influence", "users_broken:make", "--layer", "1"], "importing 'users_broken' raised ZeroDivisionError"),
        (
            ["modules", "users_own:make", "--layer", "1", "--other", "maps.safetensors"],
            "--other is given with a generator, from which a second sample is taken anyway; leave it out",
        ),
        (
            ["hybridize", "users_own:make", "--layer", "1", "--modules-file", "mods.json"],
            "--layer is given with --modules-file, which names the layers; leave it out",
        ),
        (["hybridize", "users_own:make", "--units", "1", "--modules-file", "mods.json"], "give either --units or"),
        *(
            (["modules", "maps.safetensors", f"--{option}", value], f"--{option} is given with maps from a file")
            for option, value in [("pairs", "64"), ("device", "cpu"), ("layer", "1")]
        ),
        (["hybridize", "users_own:make", "--layer", "1"], "give either --units or --modules-file"),
        (["hybridize", "users_own:make", "--units", "1"], "give --layer with --units"),
        (["hybridize", "users_own:make", "--layer", "1", "--units", "one"], "units are 'one'"),
        (["hybridize", "users_own:make", "--modules-file", "users_own.py"], "holds no modules"),
        (["modules", "users_own:make"], "give --layer, or a maps file"),
        (["modules", "users_own.safetensors"], "users_own.safetensors cannot be read"),
        (
            ["influence", "users_own:make", "--layer", "1", "--pairs", "0"],
            "argument --pairs: it is '0'; give a whole number from 1 up; 'counterfactual-probe influence --help'",
        ),
        (["report", "users_own:make", "--pairs", "1"], "1 pair asked for; a report needs at least 16"),
        (
            ["influence", "users_own:make", "--layer", "1", "--seed", "-1"],
            "argument --seed: it is '-1'; give a whole number from 0 up",
        ),
    ],
)
def test_mistakes_are_one_sentence(
    folder: Path, arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    assert sentence in captured.err
    assert captured.err.startswith("counterfactual-probe: ")
    assert "Traceback" not in captured.err
    assert captured.out == ""


@pytest.mark.parametrize("device", ["cpu", "cpu:0"])
def test_a_device_has_several_names(folder: Path, device: str) -> None:
    arguments = ["hybridize", "users_own:make", "--layer", "1", "--units", "0", "-n", "1", "--out", "d"]
    assert run(*arguments, "--device", device) == 0


def test_a_factory_imports_from_its_folder_and_the_path_is_as_before(folder: Path) -> None:
    before = list(sys.path)
    try:
        assert open_generator("users_own:helped", None).name == "mine"
        assert sys.path == ["put in front by the factory", *before]
    finally:
        sys.path[:] = before
        sys.modules.pop("users_helper", None)


def test_hybrids_are_labelled_by_the_numbers_in_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = []
    plot = cp.Hybrids.plot

    def noted(self: cp.Hybrids, *arguments: Any, **options: Any) -> Any:
        labels.append(options["labels"])
        return plot(self, *arguments, **options)

    monkeypatch.setattr(cp.Hybrids, "plot", noted)
    Path("mods.json").write_text(json.dumps({"modules": [{"1": [0]}, {"1": []}, {"1": [2, 3]}]}))
    assert run("hybridize", "users_own:make", "--modules-file", "mods.json", "-n", "1", "--out", "c") == 0
    assert labels == [["module 1", "module 3"]]


def test_files_of_a_layer_that_runs_twice_have_plain_names(folder: Path) -> None:
    for command in (
        ["influence", "--pairs", "2"],
        ["modules", "--pairs", "2"],
        ["hybridize", "--units", "0", "-n", "1"],
    ):
        name, *rest = command
        assert run(name, "users_own:twice", "--layer", "1#2", *rest, "--out", "f", "--no-progress") == 0
    names = {path.name for path in Path("f").iterdir()}
    assert names == {
        *(f"{kind}-1-2.command.json" for kind in ("maps", "modules", "hybrids")),
        "maps-1-2.safetensors",
        "maps-1-2.png",
        "modules-1-2.json",
        "templates-1-2.png",
        "hybrids-1-2.safetensors",
        "hybrids-1-2.png",
    }


@pytest.mark.usefixtures("undrawn")
def test_a_failed_report_leaves_the_last_one_as_it_was(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["report", "users_own:make", "--pairs", "16", "--modules", "2", "--out", "r"]
    assert run(*arguments) == 0
    before = {path: path.read_bytes() for path in Path("r").rglob("*") if path.is_file()}
    for wrong in (["--layers", "99"], ["--modules", "8"], ["--pairs", "1"]):
        assert run(*arguments, *wrong) == 2
    assert {path: path.read_bytes() for path in Path("r").rglob("*") if path.is_file()} == before


@pytest.mark.usefixtures("undrawn")
def test_only_files_of_this_report_are_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["report", "users_own:twice", "--pairs", "16", "--modules", "2"]
    arguments += ["--no-progress", "--out", "r"]
    assert run(*arguments) == 0
    (folder / "r" / "own.safetensors").write_text("the user's own")
    assert run(*arguments, "--layers", "1#2", "--force") == 0
    printed = capsys.readouterr().out
    figures = len(list(Path("r/figures").iterdir()))
    assert f"figures: r/figures ({figures} files)" in printed
    results = len(list(Path("r").glob("*.safetensors"))) - 1
    assert f"results: r ({results} safetensors files" in printed
    assert not [path for path in Path("r").rglob("*") if "1-1" in path.name]


def test_where_nothing_can_be_written_is_said_before_the_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("blocked").write_text("a file, not a folder")
    assert run("report", "users_own:make", "--pairs", "100000", "--out", "blocked") == 2
    assert "cannot be written" in capsys.readouterr().err


def test_ctrl_c_is_one_sentence(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(registry, "available", stop)
    assert run("list") == 130
    assert capsys.readouterr().err == "counterfactual-probe: interrupted\n"


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--version"], ["--help"], ["demo", "--help"], ["study", "--help"]):
        assert run(*arguments) == 0
    assert cp.__version__ in capsys.readouterr().out
