"""The explorer inside another program's page: its script, answered by its function; and the Space that uses both."""

from __future__ import annotations

import importlib.util
import json
from typing import TYPE_CHECKING, Any

import pytest

import counterfactual_probe as cp
from support.explorer_hosts import in_other_page
from support.explorer_page import gap
from support.paths import ROOT

if TYPE_CHECKING:
    from playwright.sync_api import Browser


def test_the_page_gives_pythons_hybrids(explorer: Any, gen: cp.GeneratorAdapter, browser: Browser) -> None:
    page = browser.new_page()
    visitor = in_other_page(page, explorer.embedding())
    visitor.clicks("sample 3")
    visitor.cell(1).click()
    visitor.settles()
    assert gap(visitor, gen) <= 1e-6
    visitor.clicks("Undo")
    assert gap(visitor, gen) <= 1e-6
    assert page.evaluate("location.hash") == ""  # the page is not ours
    assert visitor.complaints == []
    page.close()


@pytest.mark.parametrize(
    ("request_", "said"),
    [("{", "no JSON"), ("[" * 100_000, "no JSON"), ("3", "no JSON"), ('{"kind": "file"}', "kind is 'file'")],
)
def test_what_is_no_request_is_said(request_: str, said: str, explorer: Any) -> None:
    assert said in json.loads(explorer.embedding().answer(request_))["error"]


@pytest.mark.examples
def test_the_space_shows_and_computes() -> None:
    pytest.importorskip("gradio", reason="gradio is not installed")
    spec = importlib.util.spec_from_file_location("space_app", ROOT / "examples/space/live/app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    blocks = module.app("dcgan-faces-small", n_pairs=2)
    (component,) = [one for one in blocks.blocks.values() if type(one).__name__ == "HTML"]
    (answer,) = component.server_functions
    assert "pixels" in json.loads(answer(json.dumps({"kind": "picture", "sample": 3})))
