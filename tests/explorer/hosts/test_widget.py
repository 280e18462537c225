"""The explorer in a notebook: the widget's page in a browser, answered by its Python, and what is left without."""

from __future__ import annotations

import base64
import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import counterfactual_probe as cp
from support.explorer_hosts import in_notebook
from support.explorer_page import gap

if TYPE_CHECKING:
    from playwright.sync_api import Browser


def test_the_widgets_page_gives_pythons_hybrids(explorer: Any, gen: cp.GeneratorAdapter, browser: Browser) -> None:
    pytest.importorskip("anywidget", reason="anywidget is not installed")
    widget = explorer.widget()
    page = browser.new_page()
    visitor = in_notebook(page, widget)
    visitor.chooses(5, 2)
    visitor.cell(3).click()
    visitor.settles()
    state = json.loads(widget.state)
    assert (state["base"], state["source"]) == (5, 2)
    assert gap(visitor, gen) <= 1e-6
    assert page.evaluate("location.hash") == ""  # a notebook's address is not ours
    said: list[str] = []
    widget.send = lambda content: said.append(content["error"])
    widget._handle_custom_msg({"kind": "picture", "sample": -1, "id": 9}, [])
    assert "sample is -1" in said[0]
    page.locator(".cell").first.focus()
    page.keyboard.press("Control+z")
    assert json.loads(widget.state) != state
    assert visitor.complaints == []
    page.close()


def test_a_saved_notebook_shows_a_picture(explorer: Any) -> None:
    from PIL import Image

    pytest.importorskip("anywidget", reason="anywidget is not installed")
    shown = explorer._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in shown
    assert shown["text/plain"].startswith("Explorer('toy-faces'")
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(shown["image/png"]))).convert("L"))
    assert pixels.std() > 10


def test_without_the_library_it_says_what_to_install(explorer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from counterfactual_probe.explorer import explore

    monkeypatch.setattr(explore, "find_spec", lambda name: None)
    with pytest.raises(cp.ProbeError, match=r"needs anywidget; run: pip install 'counterfactual-probe\[notebook\]'"):
        explorer.widget()
    shown = explorer._repr_mimebundle_()
    assert "image/png" in shown
    assert "counterfactual-probe[notebook]" in shown["text/html"]
