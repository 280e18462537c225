"""The Python side of the explorer: what it accepts, what it chooses by itself, and what a page holds."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import counterfactual_probe as cp
from counterfactual_probe.explorer import explore
from counterfactual_probe.explorer.contents import POOL, SHOWN, Contents
from counterfactual_probe.explorer.explore import _pairs_by_layer
from counterfactual_probe.explorer.layer import Partition, coarse, map_size, quantised
from support.explored import Faces, faces, normal


@pytest.fixture(scope="module")
def gen() -> cp.GeneratorAdapter:
    return faces()


@pytest.fixture(scope="module")
def contents(gen: cp.GeneratorAdapter) -> Contents:
    return cp.explore(gen, "second", n_pairs=16, seed=3)._contents


def test_a_page_holds_the_maps_of_python(gen: cp.GeneratorAdapter, contents: Contents) -> None:
    made, program = contents.for_file()
    assert program is not None
    (layer,) = made["layers"]
    maps = cp.InfluenceMap(gen, "second").attribute(n_pairs=16, seed=3).maps.numpy() / 2  # a share of −1…1
    values = np.frombuffer(base64.b64decode(layer["maps"]), np.uint8).reshape(maps.shape)
    peaks = np.array(layer["peaks"])[:, None, None]
    assert np.abs(values / 255 * peaks - maps).max() <= 0.51 / 255 * maps.max()
    assert np.allclose(peaks.ravel(), maps.max((1, 2)), rtol=1e-5)


@pytest.mark.filterwarnings("ignore:NMF stopped", "ignore:another sample")
def test_a_page_holds_the_modules_of_python(gen: cp.GeneratorAdapter, contents: Contents) -> None:
    (layer,) = contents.for_file()[0]["layers"]
    maps = cp.InfluenceMap(gen, "second").attribute(n_pairs=16, seed=3, blocks=8, normalise="pair")
    for method in ("l2", "bits"):
        for found in layer["methods"][method]:
            finder = cp.ModuleFinder(len(found["modules"]), features=method).fit(maps)
            assert found["labels"] == finder.labels_.tolist()
            assert np.allclose(found["confidence"], finder.confidence_, atol=1e-3)
            assert found["expected"] == pytest.approx(finder.expected_ari_, abs=1e-3)
            shown = next(one for one, units in zip(found["modules"], finder.unit_sets(), strict=True) if units.size)
            units = next(units for units in finder.unit_sets() if units.size)
            own = cp.InfluenceMap(gen, "second").attribute(n_pairs=16, seed=3, units=units)
            assert shown["peak"] == pytest.approx(float(own.maps.max()) / 2, rel=1e-4)


def test_samples_and_parts_of_the_image(gen: cp.GeneratorAdapter, contents: Contents) -> None:
    made, program = contents.for_file()
    assert program is not None
    assert made["samples"]["seed"] == 4  # not that of the maps
    assert (made["samples"]["count"], made["samples"]["shown"]) == (POOL, SHOWN)
    latents = np.frombuffer(base64.b64decode(program["latents"]), np.float32).reshape(POOL, 6)
    assert np.array_equal(latents[5], gen.sample(1, seed=4, start=5)[0].numpy())
    by_name = {
        part["name"]: np.unpackbits(np.frombuffer(base64.b64decode(part["bits"]), np.uint8)) for part in made["regions"]
    }
    assert by_name["left"].reshape(16, 16)[:, :4].all()
    assert not by_name["left"].reshape(16, 16)[:, 8:].any()


def test_the_same_arguments_give_the_same_file(gen: cp.GeneratorAdapter, tmp_path: Path) -> None:
    one, two = (
        cp.explore(gen, "second", n_pairs=4).save(tmp_path / name).read_bytes() for name in ("a.html", "b.html")
    )
    assert one == two
    assert cp.explore(gen, "second", n_pairs=4, seed=1).save(tmp_path / "c.html").read_bytes() != one


def test_few_pairs_give_a_page_without_confidence(gen: cp.GeneratorAdapter) -> None:
    (layer,) = cp.explore(gen, "second", n_pairs=1)._contents.for_file()[0]["layers"]
    assert all(one["confidence"] is None and one["expected"] is None for one in layer["methods"]["l2"])
    assert set(layer["errors"]) == {None}


def test_layers_that_would_take_long_get_fewer_pairs_or_are_left_out(gen: cp.GeneratorAdapter) -> None:
    assert _pairs_by_layer(gen, None, 64) == {"first": 64, "second": 64}
    assert _pairs_by_layer(gen, None, 2**14 // 11) == {"first": 2**14 // 12, "second": 2**14 // 11}
    assert _pairs_by_layer(gen, ["first"], 2**20) == {"first": 2**20}  # whoever names a layer waits for it


def test_a_layer_of_too_many_channels_is_named_on_the_page(
    gen: cp.GeneratorAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explore, "_MOST_HYBRIDS", 11 * 16)
    assert _pairs_by_layer(gen, None, 64) == {"second": 17}
    made = cp.explore(gen, n_pairs=16)._contents.as_json(4, 4, live=True)
    assert [layer["name"] for layer in made["layers"]] == ["second"]
    assert "maps of it take long: first" in made["about"]
    assert "take long" not in cp.explore(gen, "second", n_pairs=16)._contents.as_json(4, 4, live=True)["about"]
    monkeypatch.setattr(explore, "_MOST_HYBRIDS", 1)
    assert _pairs_by_layer(gen, None, 2) == {"second": 2}  # at least the one of fewest channels


def test_what_is_wrong_is_said(gen: cp.GeneratorAdapter, tmp_path: Path) -> None:
    with pytest.raises(cp.ProbeError, match="images of 1 or 3 channels and those of toy-faces have 2"):
        cp.explore(faces(2))
    with pytest.raises(cp.ProbeError, match="generator is a Faces; give what wrap or load returns"):
        cp.explore(Faces())  # type: ignore[arg-type]
    with pytest.raises(cp.ProbeError, match="nearest: 'second'"):
        cp.explore(gen, "secnd")
    with pytest.raises(cp.ProbeError, match="layers is empty"):
        cp.explore(gen, [])
    with pytest.raises(cp.ProbeError, match="precision is 'float8'; give 'float16' or 'float32'"):
        cp.explore(gen, precision="float8")  # type: ignore[arg-type]
    with pytest.raises(cp.ProbeError, match="n_pairs"):
        cp.explore(gen, n_pairs=0)
    explorer = cp.explore(gen, "second", n_pairs=1)
    with pytest.raises(cp.ProbeError, match="it is a folder"):
        explorer.save(tmp_path)
    if Path("/dev/full").exists():
        with pytest.raises(cp.ProbeError, match="cannot be written"):
            explorer.save("/dev/full")


def test_images_of_one_colour_and_vectors_before_them() -> None:
    assert cp.explore(faces(1), "second", n_pairs=1)._contents.for_file()[0]["size"] == [1, 16, 16]


def test_a_layer_of_vectors_gives_pictures_and_says_why() -> None:
    class Vectors(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.image = nn.Linear(5, 8), nn.Linear(8, 3 * 64)

        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return torch.tanh(self.image(torch.tanh(self.hidden(z)))).view(-1, 3, 8, 8)

    explorer = cp.explore(cp.wrap(Vectors().eval(), normal(5), layers=["hidden"]), n_pairs=2)
    assert not explorer.computes
    assert "layer hidden, whose activations are no images" in explorer._contents.why
    made, program = explorer._contents.for_file()
    assert program is None
    assert len(made["precomputed"]) % 30 == 0  # ordered pairs of six samples
    assert made["precomputed"]


def test_thousands_of_channels() -> None:
    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.start, self.image = nn.ConvTranspose2d(5, 2048, 4), nn.ConvTranspose2d(2048, 3, 4, 4)

        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return torch.tanh(self.image(torch.relu(self.start(z[:, :, None, None]))))

    made, program = cp.explore(cp.wrap(Wide().eval(), normal(5), layers=["start"]), n_pairs=2)._contents.for_file()
    assert program is not None
    assert len(made["layers"][0]["peaks"]) == 2048


def test_sizes_of_maps() -> None:
    assert [coarse(side) for side in (64, 48, 1024, 100, 37, 61, 6)] == [32, 24, 32, 25, 37, 61, 6]
    assert map_size((64, 64), 100) == (32, 32)
    assert map_size((64, 64), 2000) == (16, 16)
    assert map_size((16, 32), 100) is None
    assert quantised(np.zeros((2, 2)))[1] == 0


def test_a_page_begins_with_a_module_that_is_seen(gen: cp.GeneratorAdapter) -> None:
    maps = cp.InfluenceMap(gen, "second").attribute(n_pairs=4)
    finder = cp.ModuleFinder(3, features="bits").fit(maps)
    strong, weak, none = np.full((4, 4), 0.2), np.full((4, 4), 0.03), np.full((4, 4), 0.001)

    def begins(names: list[str], *given: np.ndarray, confidence: list[float]) -> str:
        sure = np.array([confidence[label] for label in finder.labels_])
        return Partition(finder, names, dict(enumerate(given)), sure).telling_module().name

    assert begins(["all but eyes", "eyes", "top"], strong, weak, weak, confidence=[1, 0.8, 0.7]) == "eyes"
    assert begins(["all but eyes", "eyes", "top"], strong, weak, weak, confidence=[1, 0.7, 0.8]) == "top"
    assert begins(["all but eyes", "eyes", "top"], strong, none, weak, confidence=[1, 0.9, 0.1]) == "top"
    assert begins(["all but eyes", "eyes", "module 3"], strong, none, weak, confidence=[1, 1, 1]) == "all but eyes"


def test_it_prints_what_it_is(contents: Contents) -> None:
    text = str(cp.explore(faces(), "second", n_pairs=1))
    assert "Explorer('toy-faces', 1 layer)" in text
    assert "the page carries the generator" in text
