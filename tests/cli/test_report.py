"""Sections of other packages in the command ``report``: whatever they do, the rest of the report is written."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from counterfactual_probe.cli import main
from counterfactual_probe.reporting import section as sections
from support.factories import FACTORY

SECTION = """
from counterfactual_probe.reporting import Section, SectionMaker

def make(generator, study, say):
    {make}

def ready():
    {ready}

BAD = SectionMaker("bad", "fails", make, ready)
GOOD = SectionMaker("good", "works", lambda generator, study, say: Section("Good", ("All is well.",)))
"""
ARGUMENTS = ("--pairs", "16", "--modules", "2", "--no-progress", "--out", "r")


@pytest.fixture
def report(
    users_module: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch, undrawn: None
) -> Callable[..., int]:
    users_module("users_factory", FACTORY)

    def run(make: str = "return Section('Bad')", ready: str = "pass") -> int:
        folder = users_module("users_sections", SECTION.format(make=make, ready=ready))
        monkeypatch.syspath_prepend(str(folder))
        given = [("bad", "users_sections:BAD"), ("good", "users_sections:GOOD")]
        monkeypatch.setattr(sections, "entry_points", lambda group: [EntryPoint(*pair, group) for pair in given])
        return main(["report", "users_factory:make", "--sections", "bad,good", *ARGUMENTS])

    return run


@pytest.mark.parametrize("make", ["1 / 0", "raise SystemExit(0)", "raise GeneratorExit", "return 'no section'"])
def test_a_section_that_fails_is_left_out_and_named(
    report: Callable[..., int], make: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(make) == 2
    page = Path("r/report.html").read_text()
    assert "All is well." in page
    assert "Bad" not in page
    err = capsys.readouterr().err
    assert "left out: section 'bad' " in err
    assert err.endswith("counterfactual-probe: the report lacks the sections that failed: bad; the reasons are above\n")


def test_a_section_that_works_is_there(report: Callable[..., int]) -> None:
    assert report() == 0
    assert 'id="section-bad">\n<summary><h2>Bad</h2>' in Path("r/report.html").read_text()


@pytest.mark.parametrize("ready", ["1 / 0", "raise SystemExit(0)"])
def test_a_section_that_is_not_ready_stops_before_the_run(
    report: Callable[..., int], ready: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(ready=ready) == 2
    assert not Path("r").exists()
    assert "section 'bad' failed" in capsys.readouterr().err
