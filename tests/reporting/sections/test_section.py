"""Further sections of the report: on the page, beside it, removed with it, and found by name."""

from __future__ import annotations

import base64
import json
import re
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

import counterfactual_probe as cp
from counterfactual_probe.cli import entry as cli
from counterfactual_probe.reporting import section as sections
from counterfactual_probe.reporting import write_report
from counterfactual_probe.reporting.section import CaptionedFigure, Section, SectionMaker, Table, section_maker, shown
from counterfactual_probe.reporting.study import Settings, Study, run_study
from support.toys import PLAIN

SETTINGS = Settings(n_modules=2, max_pairs=16, shown=2)


@pytest.fixture(scope="module")
def study() -> Study:
    return run_study(PLAIN.generator(), ["main.6"], settings=SETTINGS)


def picture(name: str) -> CaptionedFigure:
    figure = Figure(figsize=(2, 1))
    figure.add_subplot().plot([1, 3])
    return shown(name, figure, "A line & its caption.", "2 points", narrow=True)


def section(study: Study, title: str = "Mean Errors!") -> Section:
    return Section(
        title,
        ("The first <sentence>.", "The second."),
        tables=(Table(("layer", "error"), (("main.6", "0.5"), ("main.8", "0.7 & more")), note="Of 2 pairs."),),
        figures=(picture("line"),),
        results={"a.safetensors": study.layers[0].hybrids, "b.json": {"x": [1, 2]}, "c.csv": "x,y\n1,2\n"},
    )


def test_all_parts_are_on_the_page_and_beside_it(study: Study, tmp_path: Path) -> None:
    made = section(study)
    report = write_report(study, tmp_path, sections=[made])
    page = report.page.read_text()
    text = page[page.index('<details class="chapter" id="section-mean-errors">\n<summary><h2>Mean Errors!</h2>') :]
    assert "<p>The first &lt;sentence&gt;.</p>\n<p>The second.</p>" in text
    assert '<tr><th scope="col" class="text">layer</th><th scope="col">error</th></tr>' in text
    assert '<tr><td class="text">main.6</td><td>0.5</td></tr>' in text
    assert "0.7 &amp; more" in text
    assert "Of 2 pairs." in text
    assert "A line &amp; its caption." in text
    assert '<figure class="narrow plot" id="section-mean-errors-line">' in text
    assert base64.b64encode(made.figures[0].content).decode() in text
    assert (tmp_path / "figures/section-mean-errors-line.svg").read_bytes() == made.figures[0].content
    assert cp.Hybrids.load(tmp_path / "section-mean-errors-a.safetensors").units == study.layers[0].hybrids.units
    assert json.loads((tmp_path / "section-mean-errors-b.json").read_text()) == {"x": [1, 2]}
    assert (tmp_path / "section-mean-errors-c.csv").read_text() == "x,y\n1,2\n"
    assert {path.name for path in report.results} >= {f"section-mean-errors-{name}" for name in made.results}
    assert "section-" not in write_report(study, tmp_path / "plain").page.read_text()


def test_the_same_sections_give_the_same_bytes(study: Study, tmp_path: Path) -> None:
    first, second = (write_report(study, tmp_path / name, sections=[section(study)]) for name in "ab")
    for one, two in zip([first.page, *first.results], [second.page, *second.results], strict=True):
        assert one.read_bytes() == two.read_bytes()
    other = write_report(study, tmp_path / "c", sections=[section(study, "Other")])
    assert other.page.read_bytes() != first.page.read_bytes()


def test_an_earlier_reports_sections_are_removed_and_nothing_else(study: Study, tmp_path: Path) -> None:
    theirs = tmp_path / "section-mine.csv"
    theirs.write_text("the user's own")
    write_report(study, tmp_path, sections=[section(study)])
    write_report(study, tmp_path)
    assert sorted(tmp_path.rglob("*section-*")) == [theirs]
    assert "section-" not in (tmp_path / "study.json").read_text()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Section("…"), r"the title of a section is '…'; give one with letters"),
        (lambda: Section("A", figures=(picture("p"), picture("p"))), r"section 'A' has two figures named 'p'"),
        (lambda: Section("A", results={"../b.json": 1}), r"'../b.json' cannot name a result; give a plain file name"),
        (lambda: Section("A", results={"b.pkl": 1}), r"'b.pkl' cannot name a result; .* ends in .safetensors, .json"),
        (lambda: Section("A", results={"b.safetensors": 1}), r"result 'b.safetensors' is a int; .safetensors takes a"),
        (lambda: Section("A", results={"b.csv": [1]}), r"result 'b.csv' is a list; .* .csv a text"),
        (lambda: Table(("a", "b"), (("1",),)), r"a row of the table holds 1 cells \(1\) and its head 2; give one"),
    ],
)
def test_mistakes_are_sentences(make: Any, sentence: str) -> None:
    with pytest.raises(cp.ProbeError, match=sentence):
        make()


def test_two_sections_of_one_name_are_refused_before_anything_is_removed(study: Study, tmp_path: Path) -> None:
    write_report(study, tmp_path, sections=[section(study)])
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(cp.ProbeError, match="two sections are titled 'Mean errors' and 'mean: errors', which name the"):
        write_report(study, tmp_path, sections=[Section("Mean errors"), Section("mean: errors")])
    assert sorted(tmp_path.rglob("*")) == before


def _counted(generator: cp.GeneratorAdapter, study: Study, say: Any) -> Section:
    say("counting layers")
    return Section("Counted", (f"{generator.name} has {len(study.layers)} layer here.",))


COUNTED = SectionMaker("counted", "how many layers there are", _counted)


@pytest.mark.usefixtures("undrawn")
def test_the_command_line_finds_sections_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = EntryPoint("counted", f"{__name__}:COUNTED", sections.GROUP)
    monkeypatch.setattr(sections, "entry_points", lambda group: [entry] if group == sections.GROUP else [])
    assert sections.available_sections() == ["counted"]
    assert section_maker("counted") is COUNTED
    arguments = ["report", "dcgan-faces", "--layers", "main.11", "--pairs", "16", "--no-progress"]
    assert cli.main([*arguments, "--out", str(tmp_path), "--sections", "counted"]) == 0
    assert "counting layers" in capsys.readouterr().err
    assert re.search(r"<p>dcgan-faces has 1 layer here.</p>", (tmp_path / "report.html").read_text())
    assert cli.main([*arguments, "--out", str(tmp_path / "no"), "--sections", "conted"]) == 2
    assert "no section named 'conted' is registered; nearest: 'counted'" in capsys.readouterr().err
    assert not (tmp_path / "no").exists(), "said before the long run"
