"""What the documents say works: every example runs, every link leads somewhere, no version disagrees."""

from __future__ import annotations

import doctest
import importlib
import re
import shlex
import tomllib
from pathlib import Path

import pytest

import counterfactual_probe as cp
from counterfactual_probe.cli import entry as cli
from support.documents import blocks, run_python
from support.paths import DOCS, ROOT
from support.toys import seeded

README = ROOT / "README.md"
OWN = DOCS / "your-own-generator.md"


def test_the_readmes_python_runs_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(run_python(README)) >= 7
    assert Path("hybrids.png").stat().st_size > 1000
    (error,) = re.findall(r"^    print\(error\)  # (.+)$", README.read_text(), re.MULTILINE)
    assert error in capsys.readouterr().out.splitlines()


def test_the_page_on_your_own_generator_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(run_python(OWN)) == 3
    out = capsys.readouterr().out
    assert "AdapterReport('Generator', 20 passed" in out
    assert out.splitlines()[-1] == "prepared"
    assert Path("hybrids.png").stat().st_size > 1000


def test_the_page_on_disentanglement_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(run_python(ROOT / "docs" / "disentanglement.md")) == 4
    assert capsys.readouterr().out.startswith("MIG(0.")
    assert Path("dci.json").stat().st_size > 100
    assert Path("parts.png").stat().st_size > 1000


def test_the_page_on_known_parts_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with seeded(0):  # its autoencoder has random weights
        assert len(run_python(ROOT / "docs" / "known-parts.md")) == 2
    out = capsys.readouterr().out
    assert out.startswith("PartsAgreement(mean IoU 0.")
    assert out.endswith("True True\n")
    assert Path("parts.png").stat().st_size > 1000
    assert Path("parts.safetensors").stat().st_size > 1000


def test_the_page_on_robustness_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(run_python(ROOT / "docs" / "robustness.md")) == 1
    assert "(1, 1, 2, 2)" in capsys.readouterr().out
    assert all(Path(f"{name}.png").stat().st_size > 5000 for name in ("recognition", "entropy", "disagreements"))


@pytest.mark.parametrize(
    ("page", "images"),
    [
        ("index", ["hybrids"]),
        ("modules", ["maps", "templates", "selection"]),
        ("hybrids", ["hybrids", "eyes"]),
    ],
)
def test_the_first_pages_run(page: str, images: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_python(ROOT / "docs" / f"{page}.md")
    assert all(Path(f"{name}.png").stat().st_size > 1000 for name in images)


def test_the_errors_that_are_explained_are_those_that_are_raised() -> None:
    sources = " ".join(path.read_text() for path in (ROOT / "counterfactual_probe").rglob("*.py"))
    said = re.sub(r'"\s*f?"', "", sources)
    rows = re.findall(r"^\| [^`|]*`([^`]+)`", OWN.read_text().partition("## When")[2].partition("##")[0], re.MULTILINE)
    assert len(rows) >= 9
    for row in rows:
        parts = [part.strip() for part in re.split(r"'[^']*'|\[…\]|[0-9(,;]+", row)]
        assert any(len(part) > 8 and part in said for part in parts), f"no error says {row!r}"
    assert "the moon is full" not in said


def test_the_ten_lines_are_ten() -> None:
    _, _, section = README.read_text().partition("## Your own generator, in ten lines\n")
    code = re.findall(r"^```python\n(.*?)^```", section, re.DOTALL | re.MULTILINE)[0]
    lines = [line for line in code.splitlines() if line.strip() and not line.startswith("import ")]
    assert 0 < len(lines) <= 10


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
    assert commands == ["demo", "test"]
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in commands)


@pytest.mark.parametrize("document", sorted(ROOT.glob("*.md")) + sorted(ROOT.glob("docs/*.md")), ids=lambda p: p.name)
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
