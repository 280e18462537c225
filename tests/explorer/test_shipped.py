"""Explorers of generators that ship: the documentation's page, and how large and how fast files are."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import counterfactual_probe as cp
from support.explorer_page import Visitor, gap
from support.paths import DOCS, ROOT, run_python

if TYPE_CHECKING:
    from playwright.sync_api import Browser


def test_every_model_that_ships_has_an_explorer_on_the_site() -> None:
    names = re.search(r"^SHIPPED := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert names is not None
    shipped = names[1].split()
    assert sorted(shipped) == [name for name in cp.available() if not name.startswith("biggan-deep-")]
    page = (DOCS / "explorer.md").read_text()
    linked = re.findall(r"\]\(https://[^)]+/explorers/([\w-]+)\.html\)", page)
    assert sorted(linked) == sorted(shipped)
    assert "make site explorers" in (ROOT / ".github/workflows/site.yml").read_text()


@pytest.mark.examples
def test_the_page_on_the_explorer_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, browser: Browser) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_python(DOCS / "explorer.md")
    page = browser.new_page()
    visitor = Visitor(page).opens((tmp_path / "explorer.html").as_uri())
    assert gap(visitor, cp.load("dcgan-faces-small")) <= 2e-3
    assert visitor.complaints == []
    page.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "megabytes", "milliseconds"),
    [("dcgan-faces", 12, {"main.5": 400, "main.8": 120, "main.11": 40}), ("dcgan-faces-small", 2, {"main.2": 100})],
)
def test_files_are_small_and_fast(
    name: str, megabytes: float, milliseconds: dict[str, float], tmp_path: Path, browser: Browser
) -> None:
    gen = cp.load(name)
    path = cp.explore(gen).save(tmp_path / "explorer.html")
    assert path.stat().st_size <= megabytes * 1e6
    page = browser.new_page()
    start = time.monotonic()
    visitor = Visitor(page).opens(path.as_uri())
    assert time.monotonic() - start <= 4  # 2 s on two idle cores; these tests may share theirs
    assert gap(visitor, gen) <= 2e-3
    for layer, most in milliseconds.items():
        took = []
        for channel in range(5):
            page.evaluate(
                "([layer, channel]) => explorer.store.change({ units: { [layer]: [0, 1, 2 + channel] } })",
                [layer, channel],
            )
            visitor.settles()
            took.append(page.evaluate("explorer.latest.milliseconds"))
        assert min(took) <= most, layer
    assert visitor.complaints == []
    page.close()
