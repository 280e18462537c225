"""Whoever is at the page: with eyes or without, by pointer, keys or finger, at a desk or on a phone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import counterfactual_probe as cp
from support.explored import noisy
from support.explorer_page import Visitor, until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 390])
def test_accessibility(width: int, scheme: Any, browser: Browser, file: Path) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme, bypass_csp=True)
    visitor = Visitor(page).opens(file.as_uri())
    visitor.clicks("right", "Region")
    visitor.cell(1).click()
    found = axe.Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    # It sees faults where there are some, on this very page.
    page.evaluate("document.querySelector('.strength label').remove()")
    assert axe.Axe().run(page).violations_count > 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


def test_accessibility_of_dialogs_and_of_a_file_of_pictures(browser: Browser, tmp_path: Path) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    page = browser.new_page(bypass_csp=True)
    visitor = Visitor(page).opens(cp.explore(noisy(), n_pairs=1).save(tmp_path / "pictures.html").as_uri())
    for shown in ("", "Python", "Link", "Save picture"):
        if shown:
            visitor.button(shown).click()
        found = axe.Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        if shown:
            page.keyboard.press("Escape")
    page.close()


def test_modules_are_checkboxes_that_keys_reach(visitor: Visitor) -> None:
    visitor.clicks("Reset all")
    name = visitor.chip(0).locator(".name").inner_text()
    box = visitor.page.get_by_role("checkbox", name=name, exact=True)
    described = box.evaluate(
        "(box) => box.getAttribute('aria-describedby').split(' ').map((id) => document.getElementById(id).textContent)"
    )
    assert "channel" in described[0]
    assert "of the range" in described[1]
    box.focus()
    visitor.page.keyboard.press("Space")
    visitor.settles()
    assert box.is_checked()
    layer = visitor.state["layer"]
    assert visitor.page.get_by_role("button", name=f"take back what is set in {layer}").is_visible()
    # One channel less: neither checked nor unchecked.
    channel = visitor.page.locator('.cell[aria-pressed="true"]').first
    channel.focus()
    visitor.page.keyboard.press("Enter")
    visitor.settles()
    alone = not visitor.state["units"]
    assert not box.is_checked()
    assert box.evaluate("(box) => box.indeterminate") != alone


def test_what_is_set_in_other_layers_is_seen(visitor: Visitor) -> None:
    visitor.clicks("Reset all")
    assert "Nothing is set" in visitor.edits
    for layer in ("first 4×4, 12 channels", "second 8×8, 10 channels"):
        visitor.clicks(layer)
        visitor.cell(1).click()
        visitor.cell(2).click()
    visitor.settles()
    assert "first 2 of 12 channels" in visitor.edits
    visitor.clicks("first 2 of 12 channels", "What is set")
    assert visitor.state["layer"] == "first"
    visitor.clicks("take back what is set in second")
    assert set(visitor.state["units"]) == {"first"}
    visitor.page.get_by_role("slider", name="Strength").press("ArrowRight")
    visitor.clicks("Reset all")
    assert (visitor.state["units"], visitor.state["strength"]) == ({}, 1)
    assert visitor.button("Reset all").is_disabled()
    visitor.clicks("Undo")
    assert set(visitor.state["units"]) == {"first"}


def test_clicks_choose_what_they_say_until_another_is_chosen(visitor: Visitor) -> None:
    for sample in (4, 6):
        visitor.clicks(f"sample {sample}")
    assert (visitor.state["base"], visitor.state["source"]) == (6, 1)
    visitor.page.get_by_role("button", name="sample 8", exact=True).click(modifiers=["Shift"])
    visitor.settles()
    assert (visitor.state["base"], visitor.state["source"]) == (6, 8)
    visitor.clicks("Choose source")
    for sample in (4, 5):
        visitor.clicks(f"sample {sample}")
    assert (visitor.state["base"], visitor.state["source"]) == (6, 5)


def test_a_link_says_where_it_works(visitor: Visitor, calls: Any) -> None:
    visitor.button("Link").click()
    assert visitor.page.get_by_text("works on this computer only").is_visible()
    visitor.button("Close").click()
    visitor.button("Python").click()
    assert not visitor.page.get_by_text("works on this computer only").is_visible()
    visitor.button("Close").click()

    def reach(protocol: str, hostname: str) -> Any:
        return calls("hosts/address.js", "m.reachOf(a)", {"protocol": protocol, "hostname": hostname})

    assert "send the file as well" in reach("file:", "")
    assert "until the program that computes is ended" in reach("http:", "127.0.0.1")
    assert reach("https:", "user.github.io") == ""


def test_the_brush_has_a_size(visitor: Visitor) -> None:
    size, drawn = visitor.page.get_by_role("slider", name="Brush size"), []
    for percent in (5, 30):
        size.fill(str(percent))
        visitor.draws([(0.5, 0.5)])
        drawn.append(visitor.page.evaluate("explorer.store.state.region.reduce((sum, one) => sum + one, 0)"))
        visitor.clicks("Clear", "Region")
    # A disc of 30 % of 16 places across.
    assert drawn[0] < 5
    assert abs(drawn[1] - 18) <= 6
    visitor.draws([(0.5, 0.5)])
    visitor.button("Erase").click()
    visitor.draws([(0.5, 0.5)])
    assert visitor.state["region"] is None


@pytest.mark.parametrize(("width", "height"), [(844, 390), (768, 1024)])
def test_on_a_phone_held_sideways_and_on_a_tablet_pictures_stand_in_a_row(
    width: int, height: int, browser: Browser, file: Path
) -> None:
    page = browser.new_page(viewport={"width": width, "height": height})
    Visitor(page).opens(file.as_uri())
    frames = [frame.bounding_box() for frame in page.locator(".frame").all()]
    assert len({frame["y"] for frame in frames if frame}) == 1
    assert all(frame and 100 <= frame["height"] <= 0.42 * height for frame in frames)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


@pytest.fixture
def phone(browser: Browser, file: Path) -> Iterator[Visitor]:
    context = browser.new_context(
        viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True, device_scale_factor=2
    )
    visitor = Visitor(context.new_page()).opens(file.as_uri())
    yield visitor
    assert visitor.complaints == []
    context.close()


def swipe(page: Page, start: tuple[float, float], distance: float) -> None:
    """One finger upwards."""
    session = page.context.new_cdp_session(page)
    x, y = start
    session.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
    for step in range(1, 11):
        at = {"x": x, "y": y - distance * step / 10}
        session.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [at]})
    page.wait_for_timeout(200)  # the finger rests, so that nothing moves on when it is lifted
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def test_a_finger_scrolls_until_it_is_to_draw(phone: Visitor) -> None:
    page = phone.page
    box = page.locator("canvas.brush").bounding_box()
    assert box is not None
    start = box["x"] + box["width"] / 2, box["y"] + 0.8 * box["height"]
    swipe(page, start, 200)
    until(page, "scrollY > 100")
    assert phone.state["region"] is None
    page.evaluate("scrollTo(0, 0)")
    until(page, "scrollY === 0")
    page.touchscreen.tap(*start)
    page.get_by_text("press Draw on the picture").wait_for()
    phone.button("Draw").tap()
    swipe(page, start, 80)
    phone.settles()
    assert page.evaluate("scrollY") == 0
    assert phone.state["region"] is not None


def test_modules_and_the_hybrid_are_seen_together_on_a_phone(phone: Visitor) -> None:
    page = phone.page
    name = phone.chip(0).locator(".name").bounding_box()
    assert name is not None
    assert name["y"] + name["height"] <= 844, "the first module is on the first screen"
    page.evaluate("document.querySelector('.chip:last-child').scrollIntoView({ block: 'end' })")
    page.wait_for_timeout(100)
    hybrid, module = page.locator("figure.hybrid .frame").bounding_box(), page.locator(".chip").last.bounding_box()
    assert hybrid is not None
    assert module is not None
    assert hybrid["y"] >= 0
    assert hybrid["y"] + hybrid["height"] <= module["y"] + module["height"] <= 845
    page.locator("summary").tap()
    phone.clicks("first 4×4, 12 channels")
    assert phone.state["layer"] == "first"
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
