"""A generator as plain data, computed by the page's interpreter in a browser, against torch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import counterfactual_probe as cp
from counterfactual_probe.explorer.portable import program as portable
from counterfactual_probe.explorer.portable.program import CannotCarry, portable_program
from support.explored import TAILS, Faces, faces, normal, tailed

_PICTURES = "(() => { const p = new m.Program(a.program); return a.samples.map((s) => Array.from(p.picture(s))); })()"
_HYBRID = "(() => Array.from(new m.Program(a.program).hybrid(a.recipe)))()"
ENGINE = "engine/program.js"


def latents(gen: cp.GeneratorAdapter, n: int = 3) -> list[Any]:
    return [gen.sample(1, seed=1, start=i) for i in range(n)]


def gap(pictures: list[list[float]], images: torch.Tensor) -> float:
    """The largest difference, as a share of a range of 2."""
    return float((torch.tensor(pictures).view_as(images) - images).abs().max()) / 2


@pytest.mark.parametrize("name", TAILS)
def test_every_operation_gives_what_torch_gives(name: str, calls: Any) -> None:
    gen = tailed(*TAILS[name])
    program = portable_program(gen, ["start"], "float32").as_json(latents(gen))
    images = torch.cat([gen(z) for z in latents(gen)])
    assert gap(calls(ENGINE, _PICTURES, {"program": program, "samples": [0, 1, 2]}), images) <= 1e-5
    # The check can fail: other samples give other images.
    assert gap(calls(ENGINE, _PICTURES, {"program": program, "samples": [1, 2, 0]}), images) > 1e-3


@pytest.mark.parametrize(("precision", "most"), [("float16", 2e-3), ("float32", 1e-4)])
def test_weights_are_rounded_no_more_than_is_said(precision: Any, most: float, calls: Any) -> None:
    gen = faces()
    carried = portable_program(gen, ["first", "second"], precision)
    images = torch.cat([gen(z) for z in latents(gen)])
    program = carried.as_json(latents(gen))
    assert program["type"] == precision
    measured = gap(calls(ENGINE, _PICTURES, {"program": program, "samples": [0, 1, 2]}), images)
    assert measured <= most
    assert (measured > 1e-5) == (precision == "float16")  # else float16 was not tested
    assert carried.error <= most


@pytest.mark.parametrize(
    ("units", "strength", "region"),
    [
        ({"second": [0, 3, 7]}, 1.0, False),
        ({"first": [1, 2], "second": [0, 9]}, 1.0, False),
        ({"first": list(range(12))}, 1.0, False),
        ({"second": [4, 5]}, 0.35, False),
        ({"first": [1], "second": [4, 5]}, -0.5, False),
        ({"second": [2, 4]}, 1.0, True),
        ({"first": [0, 1, 2, 3], "second": [2, 4]}, 1.6, True),
    ],
)
def test_hybrids_are_those_of_python(units: dict[str, list[int]], strength: float, region: bool, calls: Any) -> None:
    gen = faces()
    z1, z2, _ = latents(gen)
    grid = torch.zeros(8, 8)
    grid[2:5, 1:7] = 1
    where = grid.repeat_interleave(2, 0).repeat_interleave(2, 1) if region else None
    hybrid = cp.Hybridizer(gen, list(units)).hybridize(z1, z2, units=units, strength=strength, where=where).images[0, 0]
    program = portable_program(gen, ["first", "second"], "float32").as_json(latents(gen))
    sent = {"height": 8, "width": 8, "values": grid.flatten().int().tolist()} if region else None
    recipe = {"base": 0, "source": 1, "units": units, "strength": strength, "where": sent}
    assert gap([calls(ENGINE, _HYBRID, {"program": program, "recipe": recipe})], hybrid[None]) <= 1e-5
    other = {**recipe, "strength": strength + 0.2}
    assert gap([calls(ENGINE, _HYBRID, {"program": program, "recipe": other})], hybrid[None]) > 1e-5


def test_what_the_page_has_not_is_computed_before_where_it_can_be(calls: Any) -> None:
    class Labelled(Faces):
        def __init__(self) -> None:
            super().__init__()
            self.names = torch.nn.Embedding(4, 6)

        def forward(self, z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            return super().forward(z + torch.cumsum(self.names(labels), 1))

    def sample(n: int, rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.randn(n, 6, generator=rng), torch.randint(4, (n,), generator=rng)

    gen = cp.wrap(Labelled().eval(), sample, layers=["second"])
    program = portable_program(gen, ["second"], "float32")
    assert "cumsum" not in {made["kind"] for made in program.operations}
    images = torch.cat([gen(z) for z in latents(gen)])
    pictures = calls(ENGINE, _PICTURES, {"program": program.as_json(latents(gen)), "samples": [0, 1, 2]})
    assert gap(pictures, images) <= 1e-5


def test_what_cannot_be_carried_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CannotCarry, match="the page cannot compute cumsum"):
        portable_program(tailed(lambda x: torch.cumsum(x, 1)), ["start"])

    class Noisy(Faces):
        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return super().forward(z + torch.randn_like(z))

    with pytest.raises(CannotCarry, match="draws noise"):
        portable_program(cp.wrap(Noisy().eval(), normal(6), layers=["second"]), ["second"])
    monkeypatch.setattr(portable, "MOST_NUMBERS", 1000)
    with pytest.raises(CannotCarry, match=r"0\.0 million weights, and a page carries up to"):
        portable_program(faces(), ["second"])
    monkeypatch.undo()
    monkeypatch.setattr(portable, "MOST_PRODUCTS", 1000)
    with pytest.raises(CannotCarry, match="billion multiplications"):
        portable_program(faces(), ["second"])


def test_weights_too_large_for_float16_are_kept_as_float32() -> None:
    module = Faces().eval()
    with torch.no_grad():
        module.first[0].weight.mul_(1e7)  # type: ignore[union-attr, operator]
        module.second[0].weight.div_(1e7)  # type: ignore[union-attr, operator]
    gen = cp.wrap(module, normal(6), layers=["first", "second"])
    assert portable_program(gen, ["first", "second"], "float16").precision == "float32"


def test_a_page_of_many_weights_begins_later(calls: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    gen = faces()
    whole = portable_program(gen, ["second"], "float32")
    monkeypatch.setattr(portable, "_LARGE", 0)
    monkeypatch.setattr(portable, "_SAMPLES", 0.01)  # so that samples cost little
    short = portable_program(gen, ["second"], "float32")
    assert len(short.operations) < len(whole.operations)
    assert short.numbers < whole.numbers
    assert sum(torch.Size(shape).numel() for _, shape in short.inputs) > 6
    images = torch.cat([gen(z) for z in latents(gen)])
    sent = {"program": short.as_json(latents(gen)), "samples": [0, 1, 2]}
    assert gap(calls(ENGINE, _PICTURES, sent), images) <= 1e-5
    # Layers that are set are in the page, however many its weights.
    early = portable_program(gen, ["first", "second"], "float32")
    assert {made["layer"] for made in early.operations if made["kind"] == "edit"} == {"first", "second"}
    # What samples need counts as well.
    monkeypatch.setattr(portable, "_SAMPLES", 10**6)
    assert portable_program(gen, ["second"], "float32").inputs == whole.inputs
