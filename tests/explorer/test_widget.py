"""The explorer in a notebook: the widget's page in a browser, answered by its Python, and what is left without."""

from __future__ import annotations

import base64
import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import counterfactual_probe as cp
from counterfactual_probe.explorer.bundle import module, style
from support.explored import faces
from support.explorer_page import Visitor, gap

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# A notebook as the page sees it: the model of anywidget, whose messages go to Python.
NOTEBOOK = """async ([code, style, contents]) => {
  document.head.append(Object.assign(document.createElement("style"), { textContent: style }));
  const listeners = new Map(), values = { contents, state: "" };
  const model = {
    get: (name) => values[name],
    set: (name, value) => { values[name] = value; },
    save_changes: () => toState(values.state),
    on: (event, listener) => listeners.set(event, [...(listeners.get(event) ?? []), listener]),
    off: () => {},
    send: (message) => toPython(JSON.stringify(message)),
  };
  globalThis.fromPython = (message, pixels) => {
    const bytes = Uint8Array.from(atob(pixels), (c) => c.charCodeAt(0));
    for (const listener of listeners.get("msg:custom")) listener(message, pixels ? [new DataView(bytes.buffer)] : []);
  };
  const address = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
  const { default: widget } = await import(address);
  const el = document.createElement("div");
  document.body.append(el);
  widget.render({ model, el });
  el.firstChild.id = "explorer";
  globalThis.explorer = el.firstChild.explorer;
}"""


@pytest.fixture(scope="module")
def gen() -> cp.GeneratorAdapter:
    return faces()


@pytest.fixture(scope="module")
def explorer(gen: cp.GeneratorAdapter) -> Any:
    return cp.explore(gen, n_pairs=2)


def test_the_widgets_page_gives_pythons_hybrids(explorer: Any, gen: cp.GeneratorAdapter, browser: Browser) -> None:
    pytest.importorskip("anywidget", reason="anywidget is not installed")
    widget = explorer.widget()
    sent: list[tuple[dict[str, Any], list[bytes]]] = []
    widget.send = lambda content, buffers=None: sent.append((content, buffers or []))
    page = browser.new_page()
    visitor = Visitor(page)
    asked: list[str] = []

    def hears(message: str) -> None:
        asked.append(message)

    page.expose_function("toPython", hears)
    page.expose_function("toState", lambda state: setattr(widget, "state", state))
    page.goto("about:blank")
    page.evaluate(NOTEBOOK, [module("widget.js"), style(), widget.contents])

    def kernel() -> None:
        """Answer, as the kernel of a notebook does, until the page asks no more."""
        for _ in range(200):
            while asked:
                widget._handle_custom_msg(json.loads(asked.pop(0)), [])
                content, buffers = sent.pop()
                pixels = base64.b64encode(buffers[0]).decode() if buffers else ""
                page.evaluate("([message, pixels]) => fromPython(message, pixels)", [content, pixels])
            page.wait_for_timeout(10)
            if page.locator("#explorer").get_attribute("aria-busy") == "false" and not asked:
                return
        raise AssertionError("the page waits for ever")

    kernel()
    page.locator(".sample").nth(5).click()
    page.locator(".sample").nth(2).click()
    visitor.cell(3).click()
    kernel()
    state = json.loads(widget.state)
    assert (state["base"], state["source"]) == (5, 2)
    assert gap(visitor, gen) <= 1e-6
    assert page.evaluate("location.hash") == ""  # a notebook's address is not ours
    assert page.evaluate("history.length") == 1 or page.url == "about:blank"
    widget._handle_custom_msg({"kind": "picture", "sample": -1, "id": 9}, [])
    assert "sample is -1" in sent.pop()[0]["error"]
    page.locator(".cell").first.focus()
    page.keyboard.press("Control+z")
    kernel()
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
