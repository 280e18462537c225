"""The explorer as a single file, driven in a browser: every control, and each hybrid against Python's."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np
import pytest
import torch
from torch import nn

import counterfactual_probe as cp
from support.explored import HOSTILE, noisy, normal
from support.explorer_page import Visitor, gap, image_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser

MOST = 2e-3  # of the range, for weights of float16


@pytest.fixture
def gen(hostile: cp.GeneratorAdapter) -> cp.GeneratorAdapter:
    return hostile


def test_it_opens_with_a_module_set_and_computes_its_hybrid(visitor: Visitor, gen: cp.GeneratorAdapter) -> None:
    assert visitor.page.locator("h1").inner_text() == HOSTILE  # text, and no element
    assert visitor.page.locator("img").count() == 0
    assert re.search(r"first \d+ of 12 channels|second \d+ of 10 channels", visitor.edits)
    assert gap(visitor, gen) <= MOST
    worker = visitor.page.workers
    assert len(worker) == 1, "the page computes by itself, and freezes meanwhile"


def test_a_session_of_choices_gives_pythons_hybrids(visitor: Visitor, gen: cp.GeneratorAdapter) -> None:
    seen = [visitor.hybrid]

    def same_as_python() -> None:
        assert gap(visitor, gen) <= MOST
        # Each step shows something new; a page that stood still would not.
        assert all(not torch.equal(visitor.hybrid, one) for one in seen)
        seen.append(visitor.hybrid)

    visitor.chooses(5, 7)
    assert (visitor.state["base"], visitor.state["source"]) == (5, 7)
    same_as_python()
    visitor.clicks("Reset all")
    assert torch.equal(visitor.hybrid, torch.tensor(visitor.page.evaluate(
        "explorer.computer.picture(5).then((pixels) => Array.from(pixels))"
    )))  # fmt: skip
    visitor.button("first 4×4, 12 channels").click()
    visitor.chip(0).click()
    visitor.settles()
    assert visitor.module(0).is_checked()
    same_as_python()
    visitor.button("second 8×8, 10 channels").click()
    visitor.cell(3).click()
    visitor.cell(8).click()
    visitor.settles()
    assert visitor.state["units"]["second"] == "3,8"
    assert set(visitor.state["units"]) == {"first", "second"}
    same_as_python()
    slider = visitor.page.get_by_role("slider", name="Strength")
    for _ in range(6):
        slider.press("ArrowRight")
    visitor.settles()
    assert visitor.state["strength"] == pytest.approx(1.3)
    same_as_python()
    visitor.draws([(0.3, 0.3), (0.3, 0.6), (0.55, 0.6)])
    visitor.page.get_by_label("Change only inside the region").check()
    visitor.settles()
    same_as_python()
    assert "Inside the region," in visitor.said
    visitor.clicks("Swap")
    assert (visitor.state["base"], visitor.state["source"]) == (7, 5)
    same_as_python()


def test_steps_are_undone_and_done_again(visitor: Visitor) -> None:
    first = visitor.state
    visitor.clicks("sample 4")
    visitor.cell(0).click()
    visitor.draws([(0.2, 0.2), (0.8, 0.8)])
    last = visitor.state
    visitor.clicks("Undo")
    assert visitor.state == {**last, "region": None}  # a stroke is one step
    for _ in range(2):
        visitor.page.keyboard.press("Control+z")
    assert visitor.state == first
    assert visitor.button("Undo").is_disabled()
    for _ in range(3):
        visitor.page.keyboard.press("Control+Shift+z")
    assert visitor.state == last
    visitor.settles()


def test_a_region_ranks_modules_and_channels(visitor: Visitor, gen: cp.GeneratorAdapter) -> None:
    def order() -> list[str]:
        return visitor.page.locator(".cell").all_inner_texts()

    whole = order()
    took = visitor.page.evaluate(
        "(() => { const v = new Uint8Array(256); v.fill(1, 0, 32); const t = performance.now();"
        " explorer.store.change({ region: v }); return performance.now() - t; })()"
    )
    assert took < 100  # milliseconds, from the brush to the ranking
    top = order()
    assert top != whole
    # The same order by Python: maps of the top two rows, where the region is.
    layer = visitor.state["layer"]
    maps = cp.InfluenceMap(gen, layer).attribute(n_pairs=16, seed=0)
    expected = maps.maps[:, :2].mean((1, 2)).argsort(descending=True).tolist()
    assert [int(text) for text in top][:4] == expected[:4]
    assert "of its peak" in visitor.chip(0).inner_text()
    visitor.clicks("right", "Region")
    assert visitor.button("right", "Region").get_attribute("aria-pressed") == "true"
    assert visitor.button(HOSTILE, "Region").count() == 1
    visitor.clicks("Clear", "Region")
    assert order() == whole


def test_nothing_is_computed_anew_for_a_region_or_what_is_taken_back(visitor: Visitor) -> None:
    hybrid, state = visitor.hybrid, visitor.state
    visitor.page.evaluate(
        "() => { const { computer } = explorer, ask = computer.ask.bind(computer);"
        " computer.ask = (request) => { explorer.hybrids += request.kind === 'hybrid'; return ask(request); };"
        " explorer.hybrids = 0; }"
    )
    visitor.clicks("right", "Region")
    assert "Inside the region," in visitor.said
    assert visitor.page.evaluate("explorer.hybrids") == 0
    # Changed and taken back at once: the picture is that of the state, whatever was asked for meanwhile.
    visitor.page.evaluate("explorer.store.change({ strength: 0.5 }); explorer.store.undo(); explorer.store.undo()")
    visitor.settles()
    visitor.page.wait_for_timeout(300)
    assert torch.equal(visitor.hybrid, hybrid)
    assert visitor.state == state
    assert visitor.page.evaluate("explorer.hybrids") == 1


def test_pointing_shows_where_a_channel_and_a_module_act(visitor: Visitor) -> None:
    overlay, told = visitor.page.locator(".overlay"), visitor.page.locator(".pointed")
    assert overlay.is_hidden()
    title = visitor.page.locator("figure.difference strong")
    assert title.inner_text() == "Difference"
    visitor.cell(2).hover()
    assert overlay.is_visible()
    assert title.inner_text() == "Where it acts"
    assert visitor.page.locator("figure.difference .overlay").count() == 1, "the base stays to be compared"
    assert "Channel 2" in told.inner_text()
    assert "±" in told.inner_text()
    visitor.page.mouse.move(0, 0)
    assert overlay.is_hidden()
    visitor.module(0).focus()  # by keys as well
    assert overlay.is_visible()
    assert "confident" in told.inner_text() or "sure" in told.inner_text() or "unreliable" in told.inner_text()


def test_a_region_is_drawn_by_keys_alone(visitor: Visitor) -> None:
    brush = visitor.page.locator("canvas.brush")
    brush.focus()
    for key in ("ArrowLeft", "ArrowUp", " ", "ArrowLeft", " "):
        brush.press(key)
    assert visitor.state["region"] is not None
    brush.press("Delete")
    assert visitor.state["region"] is None
    visitor.settles()


def test_layers_methods_and_numbers_of_modules(visitor: Visitor) -> None:
    for layer, most in (("first 4×4, 12 channels", 12), ("second 8×8, 10 channels", 10)):
        visitor.clicks(layer)
        for method in ("normalised most reproducible", "binarised as in the papers"):
            visitor.clicks(method)
            for number in (2, 4):
                visitor.clicks(str(number), "Layer, maps and number of modules")
                chips = visitor.page.locator(".chip").all_inner_texts()
                assert 1 <= len(chips) <= number
                channels = sum(int(text.split(" channel")[0].split()[-1]) for text in chips)
                assert channels <= most
                verdict = visitor.page.locator(".verdict").inner_text()
                assert "reproducible (" in verdict
                assert ("have channels" in verdict) == (len(chips) < number)
                if "not reproducible" in verdict:
                    assert all("confident" not in text and "fairly sure" not in text for text in chips)
                elif "partly reproducible" in verdict:
                    assert all("confident" not in text for text in chips)


def test_samples_are_shuffled_and_pinned(visitor: Visitor) -> None:
    before = visitor.page.evaluate("explorer.store.state.strip")
    visitor.page.get_by_role("button", name="keep sample 6 when shuffling").click()
    visitor.clicks("Shuffle")
    after = visitor.page.evaluate("explorer.store.state.strip")
    assert after[6] == 6
    assert {0, 1, 6} <= set(after)
    assert len(set(after) - set(before)) == len(before) - 3
    assert [visitor.state["base"], visitor.state["source"]] == [0, 1], "those that are compared stay"
    visitor.page.locator(".sample").nth(9).click()
    visitor.settles()
    assert visitor.state["base"] == after[9]


def test_the_link_holds_the_state(visitor: Visitor, browser: Browser) -> None:
    visitor.clicks("sample 3")
    visitor.cell(1).click()
    visitor.draws([(0.5, 0.2), (0.5, 0.8)])
    visitor.button("Link").click()
    link = visitor.page.get_by_label("Text to copy").input_value()
    visitor.button("Close").click()
    other = Visitor(browser.new_page()).opens(link)
    assert other.state == visitor.state
    assert torch.equal(other.hybrid, visitor.hybrid)
    other.page.close()


@pytest.mark.parametrize(
    "broken",
    [
        "nonsense",
        "%E0%A4%A",
        json.dumps({"v": 2}),
        json.dumps({"v": 1, "base": 9999, "source": 0}),
        json.dumps({"v": 1, "base": 0, "source": 1, "strength": 1e9}),
        json.dumps({"v": 1, "base": 0, "source": 1, "strength": 1, "layer": "nowhere"}),
        "[" * 5000,
    ],
)
def test_a_broken_link_is_said_and_gives_the_default(broken: str, browser: Browser, file: Path) -> None:
    other = Visitor(browser.new_page()).opens(f"{file.as_uri()}#{quote(broken) if broken[0] != '%' else broken}")
    assert "The link holds no state of this explorer" in other.said
    assert (other.state["base"], other.state["source"], other.state["strength"]) == (0, 1, 1)
    assert other.complaints == []
    other.page.close()


def test_a_link_with_other_values_of_a_good_one_is_refused_too(visitor: Visitor, browser: Browser, file: Path) -> None:
    good = visitor.state
    for wrong in (
        {"units": {"second": "0-10"}}, {"units": {"nowhere": "0"}}, {"units": {"second": "x"}}, {"region": "AAAA"},
        {"method": "constructor"}, {"modules": 9}, {"strip": [0]}, {"pinned": ["a"]}, {"base": 0.5},
    ):  # fmt: skip
        page = browser.new_page()
        other = Visitor(page).opens(f"{file.as_uri()}#{quote(json.dumps({**good, **wrong}))}")
        assert "The link holds no state" in other.said, wrong
        page.close()


def test_the_picture_is_saved_as_it_is(visitor: Visitor, gen: cp.GeneratorAdapter, tmp_path: Path) -> None:
    from PIL import Image

    path = saved(visitor, "16×16 pixel by pixel", "-hybrid.png", tmp_path)
    pixels = torch.from_numpy(np.asarray(Image.open(path).convert("RGB")).astype(np.float32) / 127.5 - 1).permute(
        2, 0, 1
    )
    image = image_of(visitor.lines, gen)
    assert float((pixels - image).abs().max()) / 2 <= MOST + 1 / 255
    with Image.open(saved(visitor, "512×512 enlarged", "-hybrid-512.png", tmp_path)) as large:
        assert large.size == (512, 512)
        centres = np.asarray(large.convert("RGB"))[16::32, 16::32].transpose(2, 0, 1)
    assert np.corrcoef(centres.ravel(), image.flatten().numpy())[0, 1] > 0.95  # the same picture, smoothed


def saved(visitor: Visitor, size: str, ends: str, folder: Path) -> Path:
    visitor.button("Save picture").click()
    with visitor.page.expect_download() as download:
        visitor.button(size).click()
    assert download.value.suggested_filename.endswith(ends)
    download.value.save_as(folder / f"picture{ends}")
    return folder / f"picture{ends}"


def test_without_workers_the_page_computes_by_itself(browser: Browser, file: Path, gen: cp.GeneratorAdapter) -> None:
    page = browser.new_page()
    page.add_init_script("delete globalThis.Worker")
    visitor = Visitor(page).opens(file.as_uri())
    visitor.cell(1).click()
    visitor.settles()
    assert gap(visitor, gen) <= MOST
    assert visitor.complaints == []
    page.close()


def test_a_file_of_pictures_says_so_and_shows_whole_modules(browser: Browser, tmp_path: Path) -> None:
    gen = noisy()
    explorer = cp.explore(gen, n_pairs=16)
    assert not explorer.computes
    page = browser.new_page()
    visitor = Visitor(page).opens(explorer.save(tmp_path / "pictures.html").as_uri())
    assert "This file holds pictures and not the generator: it draws noise" in page.get_by_role("note").inner_text()
    assert page.get_by_role("slider", name="Strength").is_disabled()
    visitor.chooses(4, 2)
    assert (visitor.state["base"], visitor.state["source"]) == (4, 2)
    assert gap(visitor, gen) <= 0.5 / 255 + 1e-6  # pictures of 8 bits, of which nothing else is lost
    visitor.chip(1).click()
    visitor.settles()
    assert gap(visitor, gen) <= 0.5 / 255 + 1e-6
    assert visitor.complaints == []
    page.close()


def enlarged(channels: int, factor: int) -> cp.GeneratorAdapter:
    """4×4 with so many channels, of which three colours are made, and repeated."""

    class Enlarged(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.start, self.colours = nn.ConvTranspose2d(5, channels, 4), nn.Conv2d(channels, 3, 1)
            self.enlarge = nn.Upsample(scale_factor=factor)

        def forward(self, z: torch.Tensor) -> torch.Tensor:
            colours = torch.tanh(self.colours(torch.relu(self.start(z[:, :, None, None]))))
            return self.enlarge(colours)  # type: ignore[no-any-return]

    return cp.wrap(Enlarged().eval(), normal(5), layers=["start"], name="enlarged")


def test_large_images_are_small_in_the_strip_and_whole_when_saved(browser: Browser, tmp_path: Path) -> None:
    from PIL import Image

    explorer = cp.explore(enlarged(4, 128), n_pairs=1)
    assert explorer.computes
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    visitor = Visitor(page).opens(explorer.save(tmp_path / "large.html").as_uri())
    assert page.locator(".sample canvas").first.evaluate("(canvas) => canvas.width") == 128
    with Image.open(saved(visitor, "512×512 pixel by pixel", "-hybrid.png", tmp_path)) as picture:
        assert picture.size == (512, 512)
    assert visitor.complaints == []
    page.close()


def test_many_channels_are_shown_in_parts(browser: Browser, tmp_path: Path) -> None:
    gen = enlarged(1500, 4)
    page = browser.new_page()
    visitor = Visitor(page).opens(cp.explore(gen, n_pairs=1).save(tmp_path / "wide.html").as_uri())
    assert page.locator(".cell").count() == 96
    page.get_by_role("button", name="Show more of the other 1404 channels").click()
    assert page.locator(".cell").count() == 480
    page.locator(".cell").last.click()
    visitor.settles()
    assert gap(visitor, gen) <= MOST
    assert visitor.complaints == []
    page.close()
