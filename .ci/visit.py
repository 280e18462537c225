"""A visit to the explorer of the faces: the animation of README.md, and the pictures of docs/explorer.md."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageDraw
from playwright.sync_api import Page, sync_playwright

BASE, SOURCE = 4, 11
LONG, SHORT = 1500, 260  # milliseconds that a frame is shown


class Visit:
    """Pictures of a page, each with the pointer where it is."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.at = (0.0, 0.0)
        self.frames: list[Image.Image] = []
        self.durations: list[int] = []

    def settle(self) -> None:
        self.page.locator("#explorer[aria-busy=false]").wait_for()
        self.page.wait_for_timeout(150)

    def goes(self, selector: str, share: tuple[float, float] = (0.5, 0.5)) -> None:
        box = self.page.locator(selector).first.bounding_box()
        assert box is not None
        self.at = box["x"] + share[0] * box["width"], box["y"] + share[1] * box["height"]
        self.page.mouse.move(*self.at)

    def clicks(self, selector: str) -> None:
        self.goes(selector)
        self.page.mouse.click(*self.at)
        self.settle()

    def shows(self, duration: int = LONG) -> None:
        """Take a frame."""
        self.settle()
        frame = Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")
        x, y = self.at
        pointer = x - 9, y - 9, x + 9, y + 9
        ImageDraw.Draw(frame, "RGBA").ellipse(pointer, fill=(210, 60, 20, 120), outline=(255, 255, 255, 255))
        self.frames.append(frame)
        self.durations.append(duration)


def choose(visit: Visit, base: int = BASE, source: int = SOURCE) -> None:
    for role, sample in (("base", base), ("source", source)):
        visit.page.get_by_role("button", name=f"Choose {role}").click()
        visit.page.locator(".sample").nth(sample).click()
        visit.settle()
    visit.page.evaluate("scrollTo(0, 0)")


def animation(page: Page, target: Path) -> None:
    visit = Visit(page)
    choose(visit)
    page.get_by_role("button", name="Reset all").click()
    visit.goes(".chip >> nth=1")
    visit.shows()  # where the module acts
    visit.clicks(".chip >> nth=1")
    visit.shows()
    visit.goes("h1", (0.2, 0.5))
    visit.shows()
    visit.clicks(".chip >> nth=1")
    visit.clicks(".chip >> nth=0")
    visit.goes(".strength input", (2 / 3, 0.5))
    for step in (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5):
        page.get_by_role("slider", name="Strength").fill(str(step))
        visit.goes(".strength input", ((step + 1) / 3, 0.5))
        visit.shows(SHORT)
    visit.durations[-1] = LONG
    page.get_by_role("slider", name="Strength").fill("1")
    visit.goes("canvas.brush", (0.3, 0.4))
    page.mouse.down()
    for step in range(1, 5):
        visit.goes("canvas.brush", (0.3 + 0.1 * step, 0.4))
        visit.shows(SHORT)
    page.mouse.up()
    visit.clicks(".check input")
    visit.shows(LONG + 700)
    first, *rest = visit.frames
    first.save(target, save_all=True, append_images=rest, duration=visit.durations, loop=0, quality=62, method=6)


def still(scheme: str, act: Callable[[Visit], None]) -> Callable[[Page, Path], None]:
    def take(page: Page, target: Path) -> None:
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        visit = Visit(page)
        act(visit)
        page.wait_for_timeout(600)
        shot = page.screenshot(full_page=page.viewport_size is not None and page.viewport_size["width"] > 600)
        Image.open(io.BytesIO(shot)).convert("RGB").save(target, quality=82, method=6)

    return take


def region(visit: Visit) -> None:
    choose(visit)
    visit.page.get_by_role("region", name="Region").get_by_role("group", name="Parts of the image").get_by_role(
        "button"
    ).nth(0).click()
    visit.settle()
    visit.page.mouse.move(5, 5)


def pointing(visit: Visit) -> None:
    choose(visit, 2, 13)
    visit.page.get_by_role("button", name="binarised").click()
    visit.page.locator(".chip").nth(1).click()
    visit.settle()
    visit.page.locator(".cell").nth(1).hover()


# Name of the picture: width and height of the page, and what is done there.
PICTURES: dict[str, tuple[int, int, Callable[[Page, Path], None]]] = {
    "explorer": (1200, 940, animation),
    "explorer-region": (1360, 900, still("light", region)),
    "explorer-dark": (1360, 900, still("dark", pointing)),
    "explorer-narrow": (390, 844, still("light", region)),
}


def pictures(file: Path, folder: Path) -> list[Path]:
    """All pictures of an explorer's file."""
    made = []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, (width, height, take) in PICTURES.items():
            page = browser.new_page(viewport={"width": width, "height": height})
            page.goto(file.as_uri())
            page.locator("#explorer[aria-busy=false]").wait_for()
            made.append(folder / f"{name}.webp")
            take(page, made[-1])
            page.close()
        browser.close()
    return made
