"""The explorer on a server: the same page and the same hybrids, and who gets no answer."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch

import counterfactual_probe as cp
from support.explored import Faces, faces, normal
from support.explorer_hosts import Running
from support.explorer_page import Visitor, gap

pytest.importorskip("starlette", reason="starlette is not installed")
pytest.importorskip("uvicorn", reason="uvicorn is not installed")
from counterfactual_probe.explorer.contents import Contents
from counterfactual_probe.explorer.hosts import server as hosted
from counterfactual_probe.explorer.hosts.guard import Guard
from counterfactual_probe.explorer.hosts.requests import Answers
from counterfactual_probe.explorer.hosts.server import Server
from counterfactual_probe.explorer.hosts.worker import Worker

if TYPE_CHECKING:
    from playwright.sync_api import Browser

EXACT = 1e-6  # of the range: the same computation as Python's


@pytest.fixture(scope="module")
def gen() -> cp.GeneratorAdapter:
    return faces()


@pytest.fixture(scope="module")
def contents(gen: cp.GeneratorAdapter) -> Contents:
    return cp.explore(gen, n_pairs=2)._contents


@pytest.fixture(scope="module")
def running(contents: Contents) -> Iterator[Running]:
    running = Running(contents)
    yield running
    running.ends()


RECIPE: dict[str, Any] = {
    "base": 3,
    "source": 900,
    "units": {"first": [1, 2], "second": [0]},
    "strength": 1,
    "where": None,
}


def hybrid(gen: cp.GeneratorAdapter, recipe: dict[str, Any]) -> torch.Tensor:
    z1, z2 = (gen.sample(1, seed=1, start=recipe[name]) for name in ("base", "source"))
    images = cp.Hybridizer(gen, list(recipe["units"])).hybridize(
        z1, z2, units=recipe["units"], strength=recipe["strength"]
    )
    return images.images[0, 0]


def test_answers_are_pythons_to_the_bit(running: Running, gen: cp.GeneratorAdapter) -> None:
    status, body, headers = running.ask({"kind": "hybrid", "recipe": RECIPE})
    assert status == 200
    assert np.array_equal(np.frombuffer(body, "<f4"), hybrid(gen, RECIPE).numpy().ravel())
    assert float(headers["x-milliseconds"]) > 0
    other = {**RECIPE, "strength": 0.5}
    _, body, _ = running.ask({"kind": "hybrid", "recipe": other})
    assert np.array_equal(np.frombuffer(body, "<f4"), hybrid(gen, other).numpy().ravel())
    assert not np.array_equal(np.frombuffer(body, "<f4"), hybrid(gen, RECIPE).numpy().ravel())
    _, body, _ = running.ask({"kind": "picture", "sample": 4000})
    assert np.array_equal(np.frombuffer(body, "<f4"), gen(gen.sample(1, seed=1, start=4000)).numpy().ravel())


def test_a_visitor_sees_the_same_as_in_a_file(running: Running, browser: Browser, gen: cp.GeneratorAdapter) -> None:
    page = browser.new_page()
    visitor = Visitor(page).opens(running.server.address)
    assert gap(visitor, gen) <= EXACT
    visitor.clicks("sample 5")
    visitor.cell(2).click()
    visitor.draws([(0.3, 0.3), (0.3, 0.6)])
    page.get_by_label("Change only inside the region").check()
    page.get_by_role("slider", name="Strength").press("ArrowLeft")
    visitor.settles()
    assert gap(visitor, gen) <= EXACT
    state = visitor.state
    visitor.clicks("Shuffle")
    page.reload()
    visitor.settles()
    assert visitor.state["units"] == state["units"]
    assert gap(visitor, gen) <= EXACT
    address = urlsplit(running.server.address)
    assert all(urlsplit(url).netloc == address.netloc for url in visitor.requests if not url.startswith("data:"))
    assert visitor.complaints == []
    page.close()


def test_a_program_that_has_ended_is_said(contents: Contents, browser: Browser) -> None:
    running = Running(contents)
    page = browser.new_page()
    visitor = Visitor(page).opens(running.server.address)
    running.ends()
    visitor.cell(2).click()
    visitor.settles()
    assert "has ended. Start it again" in visitor.said
    page.close()


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"token": "wrong"}, 404),
        ({"token": ""}, 404),
        ({"Host": "evil.example:{port}"}, 403),
        ({"Host": "127.0.0.1:1"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": ""}, 403),
        ({"Content_Type": "text/plain"}, 403),
        ({"path": "../../etc/passwd"}, 404),
        ({"path": "answers/more"}, 404),
        ({"method": "PUT"}, 405),
    ],
    ids=str,
)
def test_who_gets_no_answer(change: dict[str, str], status: int, running: Running) -> None:
    change = {name: value.format(port=running.server.guard.port) for name, value in change.items()}
    got, body, _ = running.ask({"kind": "picture", "sample": 0}, **change)  # type: ignore[arg-type]
    assert got == status
    assert len(body) < 100  # a sentence, and no picture


def test_the_page_is_sent_with_its_policy(running: Running) -> None:
    status, body, headers = running.ask(path="", method="GET", Origin="")
    assert status == 200
    assert body.startswith(b"<!DOCTYPE html>")
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert (headers["cache-control"], headers["referrer-policy"]) == ("no-store", "no-referrer")
    assert "server" not in headers


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (b"{", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"0" * 2**23, "no JSON"),
        ([], "must be an object"),
        ({"kind": "file", "path": "/etc/passwd"}, "kind is 'file'"),
        ({"kind": "picture"}, "does not say of what"),
        ({"kind": "picture", "sample": -1}, "sample is -1"),
        ({"kind": "picture", "sample": 10**9}, "sample is 1000000000"),
        ({"kind": "hybrid", "recipe": {**RECIPE, "units": {"third": [0]}}}, "'third', which is not on the page"),
        ({"kind": "hybrid", "recipe": {**RECIPE, "units": {"first": [12]}}}, "12 asked of layer 'first', which has 12"),
        ({"kind": "hybrid", "recipe": {**RECIPE, "strength": 3}}, "strength is 3"),
        ({"kind": "hybrid", "recipe": {**RECIPE, "more": 1}}, "unknown 'more'"),
        ({"kind": "hybrid", "recipe": {**RECIPE, "where": {"height": 2, "width": 2, "values": [1] * 4}}}, "grid 16×16"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_requests_that_ask_for_nothing_there_is(request_: Any, said: str, running: Running) -> None:
    status, body, _ = running.ask(request_)
    assert status == 400
    assert said in body.decode()


def test_one_image_at_a_time_and_none_for_those_who_have_left() -> None:
    worker: Worker[int] = Worker()
    begin, ran = threading.Event(), []

    def job(number: int) -> int:
        begin.wait(10)
        ran.append(number)
        return number

    first, second, third = (worker.submit(lambda number=number: job(number)) for number in range(3))  # type: ignore[misc]
    time.sleep(0.05)
    assert second.cancel()
    assert not first.cancel()  # it runs already
    begin.set()
    assert (first.result(10), third.result(10)) == (0, 2)
    assert ran == [0, 2]
    failing = worker.submit(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        failing.result(10)
    worker.stop()


def test_a_port_in_use_gives_the_next_one(contents: Contents, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = Answers(contents)
    first = Server(answers, port=0)
    second = Server(answers, port=first.guard.port)
    assert first.guard.port < second.guard.port < first.guard.port + 20
    assert first.guard.token != second.guard.token
    monkeypatch.setattr(hosted, "_TRIED", 1)
    with pytest.raises(cp.ProbeError, match=f"at port {first.guard.port} .*give another port or host"):
        Server(answers, port=first.guard.port)
    with pytest.raises(cp.ProbeError, match="port is 70000; give one of at most"):
        Server(answers, port=70000)
    for one in (first, second):
        one.socket.close()


def test_other_machines_are_let_in_with_a_warning_alone(contents: Contents) -> None:
    with pytest.warns(UserWarning, match=r"listens on 0\.0\.0\.0, not on this machine alone"):
        server = Server(Answers(contents), port=0, host="0.0.0.0")
    server.socket.close()
    local, wide = Guard("127.0.0.1", 80), Guard("0.0.0.0", 80)
    for name, is_local, is_wide in (
        ("127.0.0.1:80", True, True), ("localhost:80", True, True), ("192.168.1.7:80", False, True),
        ("evil.example:80", False, False), ("127.0.0.1", False, False), ("", False, False),
    ):  # fmt: skip
        assert (local.refusal("GET", {"host": name}) is None) == is_local, name
        assert (wide.refusal("GET", {"host": name}) is None) == is_wide, name


def test_it_says_where_it_is_and_opens_a_browser(contents: Contents, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(hosted.webbrowser, "open", opened.append)
    monkeypatch.setenv("DISPLAY", ":0")
    server = Server(Answers(contents), port=0)
    said: list[str] = []

    class Ended:
        def run(self, sockets: list[socket.socket]) -> None:
            sockets[0].close()
            raise KeyboardInterrupt

    monkeypatch.setattr(server, "uvicorn", Ended)
    server.run(open_browser=True, say=said.append)
    assert opened == [server.address]
    assert server.address in said[0]
    assert "Ctrl-C" in said[0]


def test_missing_libraries_are_named(contents: Contents, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        cp.ProbeError, match=r"needs starlette and uvicorn; run: pip install 'counterfactual-probe\[explore\]'"
    ):
        Server(Answers(contents))


def test_what_draws_noise_is_computed_live(browser: Browser) -> None:
    class Noisy(Faces):
        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return super().forward(z + 0.5 * torch.randn_like(z))

    gen = cp.wrap(Noisy().eval(), normal(6), layers=["second"], name="noisy")
    running = Running(cp.explore(gen, n_pairs=2)._contents)
    page = browser.new_page()
    visitor = Visitor(page).opens(running.server.address)
    visitor.cell(3).click()
    visitor.settles()
    assert gap(visitor, gen) <= EXACT
    page.close()
    running.ends()


@pytest.mark.slow
def test_a_thousand_requests_from_three_visitors(running: Running, gen: cp.GeneratorAdapter) -> None:
    import psutil

    recipes = [{**RECIPE, "base": base, "units": {"second": [base % 10]}} for base in range(20)]
    expected = [hybrid(gen, recipe).numpy().ravel() for recipe in recipes]
    wrong: list[int] = []

    def visits(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(334):
            number = int(rng.integers(20))
            body = json.dumps({"kind": "hybrid", "recipe": recipes[number]}).encode()
            if rng.random() < 0.1:  # leaves before the answer
                address = urlsplit(running.server.address)
                with socket.create_connection((address.hostname, address.port)) as leaving:
                    leaving.sendall(f"POST {address.path}answers HTTP/1.1\r\nHost: {address.netloc}\r\n".encode())
                continue
            _, pixels, _ = running.ask(body)
            if not np.array_equal(np.frombuffer(pixels, "<f4"), expected[number]):
                wrong.append(number)

    process = psutil.Process()
    before = 0
    for part in range(2):
        threads = [threading.Thread(target=visits, args=(10 * part + seed,)) for seed in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        before = before or process.memory_info().rss
    assert wrong == []
    assert process.memory_info().rss - before < 2**26
