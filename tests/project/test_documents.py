"""What the documents say works: every example runs, every link leads somewhere, no version disagrees."""

from __future__ import annotations

import doctest
import importlib
import re
import shlex
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import counterfactual_probe as cp
from counterfactual_probe.cli import entry as cli
from support.figures import SavedFigures, assert_shows, cells, column_names, legend_names, row_names
from support.paths import DOCS, ROOT, blocks, run_python
from support.toys import seeded

README = ROOT / "README.md"
OWN = DOCS / "your-own-generator.md"


@pytest.mark.examples
def test_the_readmes_python_runs_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], figure_of: SavedFigures
) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(run_python(README)) >= 7
    for name in ("hybrids", "mine"):
        (ax,) = figure_of(f"{name}.png").axes
        cells(ax, 2 + 3, 8)
        assert row_names(ax)[:2] == ["base", "source"]
    (error,) = re.findall(r"^    print\(error\)  # (.+)$", README.read_text(), re.MULTILINE)
    assert error in capsys.readouterr().out.splitlines()


@pytest.mark.examples
def test_the_page_on_your_own_generator_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], figure_of: SavedFigures
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    assert len(run_python(OWN, names)) == 3
    out = capsys.readouterr().out
    assert "AdapterReport('Generator', 20 passed" in out
    assert out.splitlines()[-1] == "prepared"
    assert_shows(figure_of("hybrids.png"), names["hybrids"])


@pytest.mark.examples
def test_the_page_on_units_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    with seeded(0):  # weights of modules in it are random
        assert len(run_python(DOCS / "what-can-be-a-unit.md", names)) == 5
    assert capsys.readouterr().out.splitlines() == ["16 UnitSet(block: token 5)", "torch.Size([8, 64])"]
    complete = names["all_of_them"]
    np.testing.assert_allclose(complete.images[0], complete.source, atol=1e-4)
    assert names["painted"].provenance["intervention"]["where"]
    assert repr(names["same"]) == repr(names["basis"])


@pytest.mark.examples
def test_the_page_on_disentanglement_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], figure_of: SavedFigures
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    assert len(run_python(DOCS / "disentanglement.md", names)) == 4
    assert capsys.readouterr().out.startswith("MIG(0.")
    assert repr(cp.metrics.DCI.load("dci.json")) == repr(names["dci"])
    (matrix,) = figure_of("dci.png").axes
    assert [text.get_text() for text in matrix.texts] == [f"{value:.2f}" for value in names["dci"].matrix.flatten()]
    (codes,) = figure_of("parts.png").axes
    cells(codes, 4, 5)
    assert row_names(codes) == ["1", "2", "3", "4"]


@pytest.mark.examples
def test_the_page_on_known_parts_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], figure_of: SavedFigures
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    with seeded(0):  # its autoencoder has random weights
        assert len(run_python(DOCS / "known-parts.md", names)) == 2
    out = capsys.readouterr().out
    assert out.startswith("PartsAgreement(mean IoU 0.")
    assert out.endswith("True True\n")
    found: cp.PartsAgreement = names["found"]
    (ax,) = figure_of("parts.png").axes
    assert cells(ax, 2, len(found.pairs)).shape[2:4] == (16, 16)
    shown = {title.rpartition(" ")[2] for title in column_names(ax)}
    assert shown == {f"{found.iou[module, part]:.2f}" for module, part in found.pairs}
    assert repr(cp.PartsAgreement.load("parts.safetensors")) == repr(found)


@pytest.mark.examples
def test_the_page_on_robustness_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], figure_of: SavedFigures
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    assert len(run_python(DOCS / "robustness.md", names)) == 1
    assert "(1, 1, 2, 2)" in capsys.readouterr().out
    result: cp.Robustness = names["result"]
    recognition, *_ = figure_of("recognition.png").axes
    assert legend_names(recognition) == ["mine"]
    (bar,) = recognition.containers
    np.testing.assert_allclose(bar.lines[0].get_ydata(), result.curve[0])
    panels = figure_of("entropy.png").axes
    assert [sum(patch.get_height() for patch in ax.patches) for ax in panels] == [result.n_pairs] * 2
    (ax,) = figure_of("disagreements.png").axes
    assert len(ax.texts) == 3 + len(result.disagreements()) > 3
    assert ax.images


def shows_hybrids(figure_of: SavedFigures, names: dict[str, Any]) -> None:
    assert_shows(figure_of("hybrids.png"), names["hybrids"])


def shows_modules(figure_of: SavedFigures, names: dict[str, Any]) -> None:
    (ax,) = figure_of("maps.png").axes
    assert cells(ax, 64 // 16, 16).shape[2:4] == (80, 64)  # the strongest of 128, their numbers above them
    (ax,) = figure_of("templates.png").axes
    cells(ax, 1, 3, gap=4)
    selection = names["selection"]
    (ax,) = figure_of("selection.png").axes
    assert ax.get_xticks().tolist() == [2, 3, 4]
    assert len(legend_names(ax)) == 3
    assert any(np.array_equal(line.get_ydata(), selection.expected_ari) for line in ax.lines)


def shows_eyes(figure_of: SavedFigures, names: dict[str, Any]) -> None:
    shows_hybrids(figure_of, names)
    (ax,) = figure_of("eyes.png").axes
    assert cells(ax, 3, 2).shape[2:4] == (128, 128)


def shows_edited(figure_of: SavedFigures, names: dict[str, Any]) -> None:
    (ax,) = figure_of("edited.png").axes
    cells(ax, 4, 2)
    assert row_names(ax) == ["picture", "base", "source", "second"]
    assert float(names["edited"].relative_error.max()) < 0.01
    assert names["found"].reached.all()


def shows_exchanged(_figure_of: SavedFigures, names: dict[str, Any]) -> None:
    found = names["found"]
    assert (found.separation > found.random_separation.mean((0, 1))).all()
    own = {row["group"]: row["faithfulness"] for row in found.by_group()}
    assert own["mixed latents"] > own["module 2"] > own["collages"]


@pytest.mark.examples
@pytest.mark.parametrize(
    ("page", "shows"),
    [
        ("index", shows_hybrids),
        ("modules", shows_modules),
        ("hybrids", shows_eyes),
        ("editing", shows_edited),
        ("exchange", shows_exchanged),
    ],
    ids=["index", "modules", "hybrids", "editing", "exchange"],
)
def test_the_first_pages_run(
    page: str, shows: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figure_of: SavedFigures
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    assert run_python(DOCS / f"{page}.md", names)
    shows(figure_of, names)


def test_the_ten_lines_are_ten() -> None:
    _, _, section = README.read_text().partition("## Your own generator, in ten lines\n")
    code = re.findall(r"^```python\n(.*?)^```", section, re.DOTALL | re.MULTILINE)[0]
    lines = [line for line in code.splitlines() if line.strip() and not line.startswith("import ")]
    assert 0 < len(lines) <= 10


@pytest.mark.examples
def test_the_readmes_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (commands,) = blocks("bash", README)
    for line in commands.splitlines():
        program, *arguments = shlex.split(line)
        assert program == "counterfactual-probe"
        assert cli.main(arguments) == 0, line


def test_the_make_commands_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    commands = re.findall(r"^make (\w+)", README.read_text(), re.MULTILINE)
    assert commands == ["demo", "study", "test"]
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in commands)


@pytest.mark.parametrize(
    "document", sorted(ROOT.glob("*.md")) + sorted(ROOT.glob("docs/**/*.md")), ids=lambda p: str(p.relative_to(ROOT))
)
def test_links_lead_to_files(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        if not target.startswith("http"):
            assert (document.parent / target).exists(), target


def test_every_pretrained_generator_is_credited() -> None:
    text = README.read_text()
    for name in cp.available():
        entry = cp.pretrained(name)
        assert f"`{name}`" in text
        assert entry.install in text
        assert entry.trained_on.split(" ")[0] in text


def test_versions_of_python_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["requires-python"] == ">=3.11"
    assert "Python ≥ 3.11" in README.read_text()
    assert "3.11" in (ROOT / ".github/workflows/ci.yml").read_text()
    assert project["tool"]["ruff"]["target-version"] == "py311"
    assert f"[{cp.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


ADAPTERS = [path.relative_to(ROOT / "adapters").with_suffix("") for path in ROOT.glob("adapters/**/*.py")]


@pytest.mark.parametrize("name", sorted(".".join(path.parts) for path in ADAPTERS))
def test_examples_in_the_adapters_docstrings(name: str) -> None:
    # The folder adapters/ cannot be collected itself: it installs under another name.
    module = importlib.import_module(f"counterfactual_probe.adapters.{name}".removesuffix(".__init__"))
    assert doctest.testmod(module, extraglobs={"cp": cp}).failed == 0
