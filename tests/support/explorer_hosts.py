"""The hosts of an explorer's page, each opened for a visitor: a server, a notebook, another program's page."""

from __future__ import annotations

import base64
import http.client
import json
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from counterfactual_probe.explorer.bundle import module, style
from counterfactual_probe.explorer.contents import Contents
from counterfactual_probe.explorer.hosts.requests import Answers
from counterfactual_probe.explorer.hosts.server import Server

from .explorer_page import Visitor

if TYPE_CHECKING:
    from playwright.sync_api import Page


class Running:
    """A server in a thread, and requests to it."""

    def __init__(self, contents: Contents, **options: Any) -> None:
        self.server = Server(Answers(contents), port=0, **options)
        self._uvicorn = self.server.uvicorn()
        self._thread = threading.Thread(target=self._uvicorn.run, kwargs={"sockets": [self.server.socket]})
        self._thread.start()

    def ask(
        self, body: Any = None, *, path: str = "answers", method: str = "POST", token: str | None = None, **headers: str
    ) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers of the answer; headers that are given take the place of a browser's."""
        address = urlsplit(self.server.address)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=10)
        sent = {"Host": address.netloc, "Origin": f"http://{address.netloc}", "Content-Type": "application/json"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        content = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        place = f"/{self.server.guard.token if token is None else token}/{path}"
        connection.request(method, place, content, {name: value for name, value in sent.items() if value})
        response = connection.getresponse()
        answer = response.status, response.read(), {name.lower(): value for name, value in response.getheaders()}
        connection.close()
        return answer

    def ends(self) -> None:
        self._uvicorn.should_exit = True
        self._thread.join(10)
        assert not self._thread.is_alive()


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
    send: (message) => toPython(JSON.stringify(message)).then(([answer, pixels]) => tell(answer, pixels)),
  };
  const tell = (message, pixels) => {
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

# Another program's page, as Gradio makes it.
OTHER_PAGE = """() => {
  const made = EMBEDDING;
  const el = document.createElement("main");
  document.body.append(el);
  globalThis.explorer = made(el, (request) => toPython(request));
  el.lastChild.id = "explorer";
}"""


def in_notebook(page: Page, widget: Any) -> Visitor:
    """A visitor of the widget's page; what they ask for, the widget answers."""
    sent: list[tuple[dict[str, Any], list[bytes]]] = []
    widget.send = lambda content, buffers=None: sent.append((content, buffers or []))

    def answered(message: str) -> tuple[dict[str, Any], str]:
        widget._handle_custom_msg(json.loads(message), [])
        content, buffers = sent.pop()
        return content, base64.b64encode(buffers[0]).decode() if buffers else ""

    visitor = Visitor(page)
    page.expose_function("toPython", answered)
    page.expose_function("toState", lambda state: setattr(widget, "state", state))
    page.goto("about:blank")
    page.evaluate(NOTEBOOK, [module("widget.js"), style(), widget.contents])
    visitor.settles()
    return visitor


def in_other_page(page: Page, embedding: Any) -> Visitor:
    """A visitor of another program's page."""
    visitor = Visitor(page)
    page.expose_function("toPython", embedding.answer)
    page.goto("about:blank")
    page.evaluate(OTHER_PAGE.replace("EMBEDDING", embedding.script))
    visitor.settles()
    return visitor
