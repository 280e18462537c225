"""Three tabs of a browser at one server, which is killed and started again: no picture is wrong, and nothing grows."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import torch

import counterfactual_probe as cp
from support.explored import faces
from support.explorer_page import SETTLED, until
from support.forks import Fork
from support.processes import free_port

pytest.importorskip("starlette", reason="starlette is not installed")
pytest.importorskip("uvicorn", reason="uvicorn is not installed")

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.long

PROGRAM = """
from pathlib import Path
import counterfactual_probe as cp
from support.explored import faces
explorer = cp.explore(faces(), n_pairs=2)
explorer.serve({port}, open_browser=False, say=Path({said!r}).write_text)
"""
# A person in a hurry: other samples, channels, strengths and regions, most of them before the last ones are answered.
WALK = """async ([seed, steps]) => {
  const { store } = explorer, seen = [];
  let number = seed;
  const random = (n) => { number = (number * 1103515245 + 12345) % 2147483648; return (number >> 16) % n; };
  const settled = async () => {
    while (explorer.el.getAttribute("aria-busy") !== "false") await new Promise((next) => setTimeout(next, 2));
  };
  for (let step = 0; step < steps; step++) {
    const units = { first: [random(12)], second: [random(10)] }, values = new Uint8Array(256);
    values.fill(1, 16 * random(8), 16 * (8 + random(8)));
    const inside = random(3) === 0;
    store.change({ base: random(40), source: random(40), units, strength: random(5) / 2 - 0.5 });
    store.change({ inside, region: inside ? values : null });
    if (random(8) === 0) explorer.strip.shuffle();
    if (random(3) === 0) continue;
    await settled();
    if (explorer.status.textContent.startsWith("Not computed")) break; // the server is gone
    const { recipe, pixels } = explorer.latest, digest = await crypto.subtle.digest("SHA-256", pixels);
    const old = (name) => store.state[name] !== recipe[name];
    if (["base", "source", "strength"].some(old)) throw new Error("an old picture");
    seen.push([recipe, Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("")]);
  }
  await settled();
  return seen;
}"""


class Program:
    """The server as a program, which can be killed."""

    def __init__(self, port: int, folder: Path) -> None:
        said = folder / "said"
        said.unlink(missing_ok=True)
        self.fork = Fork(PROGRAM.format(port=port, said=str(said)))
        while not said.exists() or "http" not in said.read_text():
            assert self.fork.poll() is None, self.fork.communicate()
            time.sleep(0.02)
        self.address = next(word for word in said.read_text().split() if word.startswith("http"))

    @property
    def memory(self) -> int:
        return int(psutil.Process(self.fork.pid).memory_info().rss)


@pytest.fixture
def program(tmp_path: Path) -> Iterator[list[Program]]:
    """Those that run; ended whatever happens."""
    running: list[Program] = []
    yield running
    for one in running:
        one.fork.kill()
        one.fork.wait(10)


class Tabs:
    def __init__(self, browser: Browser) -> None:
        self.context = browser.new_context()
        self.asked = 0
        self.complaints: list[str] = []
        self.pages = [self.new() for _ in range(3)]

    def new(self) -> Page:
        page = self.context.new_page()
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.count(request.url))
        return page

    def count(self, url: str) -> None:
        self.asked += url.endswith("/answers")

    def open(self, address: str) -> None:
        for page in self.pages:
            page.goto(address)
            page.locator(SETTLED).wait_for()

    def start(self, steps: int, seed: int) -> None:
        """All three at once."""
        for number, page in enumerate(self.pages):
            page.evaluate(f"(given) => {{ globalThis.walk = ({WALK})(given); }}", [seed + number, steps])

    def seen(self) -> list[tuple[dict[str, Any], str]]:
        return [one for page in self.pages for one in page.evaluate("walk")]


def test_three_tabs_with_reloads_and_a_server_that_is_killed(
    browser: Browser, program: list[Program], tmp_path: Path
) -> None:
    port = free_port()
    program.append(Program(port, tmp_path))
    tabs = Tabs(browser)
    tabs.open(program[0].address)
    tabs.start(30, seed=1)
    # One is closed and one reloaded while they ask.
    tabs.pages[2].close()
    tabs.pages[1].reload()
    seen = tabs.pages[0].evaluate("walk")
    tabs.pages[2] = tabs.new()
    tabs.open(program[0].address)
    tabs.start(30, seed=4)
    seen += tabs.seen()

    tabs.start(30, seed=7)
    program[0].fork.kill()
    assert program[0].fork.wait(10) == -9
    for page in tabs.pages:
        page.locator(SETTLED).wait_for()
        page.evaluate("explorer.store.change({ base: 50 })")
        page.get_by_text("the program that computes has ended. Start it again").wait_for()

    program.append(Program(port, tmp_path))
    assert f":{port}/" in program[1].address, "the port is free again"
    tabs.pages[0].evaluate("explorer.store.change({ base: 51 })")
    tabs.pages[0].get_by_text("was started again. Open the address that it has printed").wait_for()
    tabs.open(program[1].address)
    tabs.start(20, seed=10)
    seen += tabs.seen()
    before = program[1].memory
    tabs.start(60, seed=13)
    seen += tabs.seen()

    assert tabs.complaints == [], "no page fails, and none shows an old picture"
    assert tabs.asked >= 300
    assert len(seen) >= 150
    assert program[1].memory - before < 2**25
    for page in tabs.pages:
        until(page, "explorer.computer.waiting.size === 0")  # samples of the strip come last
        assert page.evaluate("explorer.computer.pictures.size") <= 64
    wrong = [recipe for recipe, digest in seen if digest != digest_of(recipe)]
    assert wrong == []
    recipe, digest = seen[0]
    assert digest != digest_of({**recipe, "strength": recipe["strength"] + 0.1}), "a wrong picture is found"
    tabs.context.close()


GEN = faces()


def digest_of(recipe: dict[str, Any]) -> str:
    """Of the hybrid that Python makes."""
    z1, z2 = (GEN.sample(1, seed=1, start=recipe[name]) for name in ("base", "source"))
    where = None
    if recipe["where"]:
        where = torch.tensor(recipe["where"]["values"], dtype=torch.float32).view(16, 16)
    hybrids = cp.Hybridizer(GEN, list(recipe["units"])).hybridize(
        z1, z2, units=recipe["units"], strength=recipe["strength"], where=where
    )
    return hashlib.sha256(hybrids.images[0, 0].numpy().astype("<f4").tobytes()).hexdigest()
