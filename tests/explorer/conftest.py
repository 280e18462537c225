"""A browser for the explorer's tests, and the file that they open; skipped, with the reason, where there is none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import counterfactual_probe as cp
from support.explored import HOSTILE, faces
from support.explorer_page import Visitor

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next((found for name in NAMES if (found := shutil.which(name))), None)
    with sync_api.sync_playwright() as play:
        try:
            made = play.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except sync_api.Error as error:
            pytest.skip(f"there is no browser: {str(error).splitlines()[0]}")
        yield made
        made.close()


@pytest.fixture(scope="module")
def blank(browser: Browser) -> Iterator[Page]:
    """A page with nothing on it, where modules of the front end can be called."""
    page = browser.new_page()
    page.goto("about:blank")
    yield page
    page.close()


@pytest.fixture
def calls(blank: Page) -> Any:
    """Evaluates an expression in which ``m`` is what a module of the front end exports."""
    from counterfactual_probe.explorer.bundle import value

    def call(module: str, expression: str, argument: Any = None) -> Any:
        return blank.evaluate(f"(a) => {{ const m = {value(module)}; return ({expression}); }}", argument)

    return call


@pytest.fixture(scope="session")
def hostile() -> cp.GeneratorAdapter:
    """Small faces, whose name is text wherever it stands."""
    return faces(name=HOSTILE)


@pytest.fixture(scope="session")
def file(hostile: cp.GeneratorAdapter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their explorer."""
    left = np.zeros((16, 16))
    left[:, :8] = 1
    explorer = cp.explore(hostile, n_pairs=16, regions={HOSTILE: left, "right": 1 - left})
    return explorer.save(tmp_path_factory.mktemp("explorer") / "explorer.html")


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    yield page
    page.close()


@pytest.fixture
def visitor(page: Page, file: Path) -> Iterator[Visitor]:
    """At the page as it opens; in the end nothing must have been fetched, and nothing complained of."""
    page.goto("about:blank")
    visitor = Visitor(page).opens(file.as_uri())
    yield visitor
    outside = [url for url in visitor.requests if not url.startswith((file.as_uri(), "blob:", "data:"))]
    assert outside == []
    assert visitor.complaints == []
