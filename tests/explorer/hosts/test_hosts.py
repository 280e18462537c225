"""One script of events on every host: the same pictures, and those of Python."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

import counterfactual_probe as cp
from support.explored import faces
from support.explorer_page import Visitor, image_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser


def events(visitor: Visitor) -> tuple[list[torch.Tensor], list[dict[str, Any]]]:
    """The hybrid and the state after each of a person's steps."""
    page, seen, states = visitor.page, [visitor.hybrid], [visitor.state]

    def step(*names: str) -> None:
        for name in names:
            visitor.clicks(name)
        visitor.settles()
        seen.append(visitor.hybrid)
        states.append(visitor.state)

    visitor.chooses(3, 8)
    step()
    visitor.chip(0).click()
    step()
    page.get_by_role("button", name="first 4×4").click()
    for channel in (1, 7, 4):
        visitor.cell(channel).click()
    step()
    page.get_by_role("slider", name="Strength").fill("0.45")
    step()
    visitor.draws([(0.2, 0.2), (0.7, 0.3)])
    page.get_by_label("Change only inside the region").check()
    step()
    step("Swap")
    step("Undo", "Undo")
    step("Reset all")
    return seen, states


def digests(pictures: list[torch.Tensor]) -> list[str]:
    return [hashlib.sha256(picture.numpy().tobytes()).hexdigest() for picture in pictures]


@pytest.mark.long
def test_the_same_events_give_the_same_pictures_on_all_hosts(browser: Browser, tmp_path: Path) -> None:
    for name in ("starlette", "uvicorn", "anywidget"):
        pytest.importorskip(name, reason=f"{name} is not installed")
    from support.explorer_hosts import Running, in_notebook, in_other_page

    gen = faces()
    explorer = cp.explore(gen, n_pairs=2)
    running = Running(explorer._contents)
    pages = [browser.new_page(viewport={"width": 1400, "height": 900}) for _ in range(4)]
    file, server, notebook, other = (
        Visitor(pages[0]).opens(explorer.save(tmp_path / "explorer.html").as_uri()),
        Visitor(pages[1]).opens(running.server.address),
        in_notebook(pages[2], explorer.widget()),
        in_other_page(pages[3], explorer.embedding()),
    )
    live, states = events(server)
    # Those that Python computes are equal to the bit.
    for visitor in (notebook, other):
        pictures, chosen = events(visitor)
        assert digests(pictures) == digests(live)
        assert chosen == states
    assert len(set(digests(live))) >= len(live) - 2  # each step changes the picture, but what is undone comes again
    assert torch.equal(live[-1], image_of(server.lines, gen).flatten())
    # A file computes with rounded weights.
    pictures, chosen = events(file)
    assert chosen == states
    gaps = [float((one - two).abs().max()) / 2 for one, two in zip(pictures, live, strict=True)]
    assert max(gaps) <= 2e-3
    for visitor in (file, server, notebook, other):
        assert visitor.complaints == []
    for page in pages:
        page.close()
    running.ends()
