"""The two examples on BigGAN-deep, from their command line to their pictures."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import ModuleType

import pytest
from counterfactual_probe.adapters.biggan_deep import CONFIGS

from support.adapters.biggans import package_model, publish
from support.figures import SavedFigures, cells, column_names, row_names
from support.paths import EXAMPLES

pytestmark = pytest.mark.examples
FEW = ["--pairs", "2", "--shown", "1"]


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module that both examples share."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import biggan_hybrids

    return biggan_hybrids


@pytest.mark.parametrize("names", ["koala_teddy", "cock_ostrich"])
def test_an_example_with_random_weights(
    names: str,
    shared: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    figure_of: SavedFigures,
) -> None:
    out = tmp_path / "out"
    script = str(EXAMPLES / f"biggan_{names}.py")
    monkeypatch.setattr(sys, "argv", [script, "--random-weights", "--out", str(out), *FEW])
    runpy.run_path(script, run_name="__main__")
    expected = [f"genblock-{block}{what}.png" for block in (4, 5, 6, 7) for what in ("", "-templates")]
    assert capsys.readouterr().out.split() == [str(out / name) for name in expected]
    one, two = names.split("_")
    for block in (4, 5, 6, 7):
        title = f"{one} and {two}, GenBlock {block} (conv_2 and conv_3): biggan-deep small, random weights"
        (hybrids,), (templates,) = (figure_of(out / f"genblock-{block}{what}.png").axes for what in ("", "-templates"))
        assert hybrids.get_title() == templates.get_title() == title
        modules = [f"module {k}" for k in range(1, len(row_names(hybrids)) - 1)]
        assert row_names(hybrids) == ["base", "source", *modules]
        cells(hybrids, 2 + len(modules), 2)
        assert len(column_names(templates)) == len(modules) > 0


def test_every_title_says_that_weights_are_random(shared: ModuleType, figure_of: SavedFigures, tmp_path: Path) -> None:
    written = shared.run("cock", "ostrich", ["--random-weights", "--out", str(tmp_path), "--blocks", "4", "5", *FEW])
    assert [figure_of(path).axes[0].get_title() for path in written] == [
        f"cock and ostrich, GenBlock {block} (conv_2 and conv_3): biggan-deep small, random weights"
        for block in (4, 4, 5, 5)
    ]


def test_weights_of_a_folder(shared: ModuleType, figure_of: SavedFigures, tmp_path: Path) -> None:
    folder = publish(tmp_path / "published", package_model(CONFIGS["small"]).float())
    chosen = ["--weights", str(folder), "--blocks", "6", "--layers", "conv_1", "conv_2"]
    written = shared.run("koala", "teddy", [*chosen, "--out", str(tmp_path / "out"), *FEW])
    assert [path.name for path in written] == ["genblock-6.png", "genblock-6-templates.png"]
    titles = [figure_of(path).axes[0].get_title() for path in written]
    assert titles == ["koala and teddy, GenBlock 6 (conv_1 and conv_2): biggan-deep-64"] * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights", "./nowhere"], "there is no folder nowhere"),
        (["--random-weights", "--blocks", "9"], "has GenBlocks 1 to 8, not 9"),
        (["--random-weights", "--truncation", "2"], r"truncation 2\.0 is outside \(0, 1\]"),
        (["--random-weights", "--layers", "conv_2", "conv_9"], "layer '.*conv_9' is not in this generator; nearest"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    arguments: list[str], message: str, shared: ModuleType, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit, match=message):
        shared.run("koala", "teddy", [*arguments, "--out", str(tmp_path), *FEW])
