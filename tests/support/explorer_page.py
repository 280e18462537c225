"""A person at an explorer's page: what they do, and what they then see."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

import torch

import counterfactual_probe as cp

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

SETTLED = "#explorer[aria-busy=false]"


class Visitor:
    """Keeps what the page asks for and complains of.

    Attributes:
        requests: addresses outside the page.
        complaints: errors and warnings of the console.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self.requests: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def opens(self, address: str) -> Visitor:
        self.page.goto(address)
        self.settles()
        return self

    def settles(self) -> None:
        self.page.locator(SETTLED).wait_for(timeout=20_000)

    def button(self, name: str, inside: str = "") -> Locator:
        where = self.page.get_by_role("region", name=inside, exact=True) if inside else self.page
        return where.get_by_role("button", name=name, exact=True)

    def clicks(self, name: str, inside: str = "") -> None:
        self.button(name, inside).click()
        self.settles()

    def chooses(self, base: int, source: int) -> None:
        """Base and source, among the samples of the strip."""
        for role, sample in (("base", base), ("source", source)):
            self.button(f"Choose {role}").click()
            self.page.get_by_role("button", name=re.compile(rf"^sample {sample}\b")).click()
            self.settles()

    def chip(self, number: int) -> Locator:
        return self.page.locator(".chip").nth(number)

    def module(self, number: int) -> Locator:
        """The checkbox of a module."""
        return self.chip(number).get_by_role("checkbox")

    def cell(self, channel: int) -> Locator:
        return self.page.locator(f'.cell[data-channel="{channel}"]')

    def draws(self, places: list[tuple[float, float]]) -> None:
        """Draw on the base picture through these places (down, across), as shares of its sides."""
        brush = self.page.locator("canvas.brush")
        brush.scroll_into_view_if_needed()
        box = brush.bounding_box()
        assert box is not None
        at = [(box["x"] + across * box["width"], box["y"] + down * box["height"]) for down, across in places]
        self.page.mouse.move(*at[0])
        self.page.mouse.down()
        for x, y in at[1:]:
            self.page.mouse.move(x, y, steps=4)
        self.page.mouse.up()
        self.settles()

    @property
    def state(self) -> dict[str, Any]:
        return self.page.evaluate("JSON.parse(explorer.text)")  # type: ignore[no-any-return]

    @property
    def hybrid(self) -> torch.Tensor:
        """The pixels of the hybrid that the page shows."""
        return torch.tensor(self.page.evaluate("Array.from(explorer.latest.pixels)"))

    @property
    def edits(self) -> str:
        """What the page says is set."""
        return self.page.get_by_role("region", name="What is set").inner_text()

    @property
    def said(self) -> str:
        return self.page.get_by_role("status").inner_text()

    @property
    def lines(self) -> str:
        """The lines of Python that the page offers."""
        self.button("Python").click()
        text = self.page.get_by_label("Text to copy").input_value()
        self.button("Close").click()
        return text


def until(page: Page, expression: str) -> None:
    """Wait for what a page forbids playwright to wait for: its policy allows no text to be evaluated."""
    end = time.monotonic() + 20
    while not page.evaluate(expression):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(20)


def image_of(lines: str, gen: cp.GeneratorAdapter) -> torch.Tensor:
    """What the lines of Python make."""
    names: dict[str, Any] = {"gen": gen}
    exec(compile(lines, "lines", "exec"), names)
    return torch.as_tensor(names["image"])


def gap(visitor: Visitor, gen: cp.GeneratorAdapter) -> float:
    """How far the page's hybrid is from that of its own lines of Python, as a share of the range."""
    image = image_of(visitor.lines, gen)
    low, high = gen.image_range
    return float((visitor.hybrid.view_as(image) - image).abs().max()) / (high - low)
