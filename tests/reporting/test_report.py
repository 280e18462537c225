"""The report: right numbers in the right places, self-contained, short before the first fold, the same every time."""

from __future__ import annotations

import base64
import dataclasses
import itertools
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import counterfactual_probe as cp
from counterfactual_probe.modules.features import Kind
from counterfactual_probe.registry.naming import Shown
from counterfactual_probe.registry.regions import generic_regions
from counterfactual_probe.reporting import write_report
from counterfactual_probe.reporting.choice import default_layers, map_size, study_layers
from counterfactual_probe.reporting.layer import screen
from counterfactual_probe.reporting.study import Settings, Study, run_study, shown_pairs
from support.toys import seeded
from support.wide import wide

LAYERS = ["main.1", "main.3"]
SETTINGS = Settings(n_modules=2, max_pairs=16, shown=3)


@pytest.fixture(scope="module")
def study() -> Study:
    return run_study(wide(), LAYERS, settings=SETTINGS)


@pytest.fixture(scope="module")
def report(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(study, tmp_path_factory.mktemp("report"), card="made up for a test <b>").page


@pytest.mark.filterwarnings("ignore::counterfactual_probe.modules.confidence.ExpectedDisagreement")
def test_its_parts_are_those_of_the_library(study: Study) -> None:
    generator = wide()
    layer = next(layer for layer in study.layers if layer.layer.name == "main.3")
    maps = cp.InfluenceMap(generator, "main.3").attribute(n_pairs=16, seed=0, blocks=8, normalise="pair")
    assert torch.equal(layer.maps.maps, maps.maps)
    l2, bits = cp.ModuleFinder(2, features="l2").fit(maps), cp.ModuleFinder(2).fit(maps)
    better = l2 if l2.expected_ari_ >= bits.expected_ari_ else bits
    assert layer.finder.features == better.features
    assert layer.finder.labels_.tolist() == better.labels_.tolist()
    assert layer.expected_ari == better.expected_ari_
    assert layer.other is not None
    assert {layer.expected_ari, layer.other.expected_ari_} == {l2.expected_ari_, bits.expected_ari_}
    z1, z2 = shown_pairs(generator, SETTINGS)
    hybrids = cp.Hybridizer(generator, "main.3").hybridize(z1, z2, units=better.modules_)
    assert torch.equal(layer.hybrids.images, hybrids.images)


def test_the_most_reproducible_layer_comes_first(study: Study, report: Path) -> None:
    aris = [layer.expected_ari for layer in study.layers]
    assert aris == sorted(aris, reverse=True)
    assert f"channels of layer {study.layers[0].layer.name} form two modules" in report.read_text()


def test_sampling_stops_once_modules_are_reproducible() -> None:
    few, many = (
        run_study(wide(), ["main.3"], settings=Settings(n_modules=2, max_pairs=64, expected_ari=goal)).layers[0]
        for goal in (0.01, 1.0)
    )
    assert int(few.maps.n_pairs.max()) == 32
    assert few.stopped == "32 pairs were enough"
    assert int(many.maps.n_pairs.max()) > 32 or many.expected_ari == 1


def test_hybrids_are_limited_where_there_are_many_channels() -> None:
    settings = Settings(max_pairs=256, max_hybrids=2**14)
    assert settings.pairs(64, 64 * 64) == (256, 16)
    assert settings.pairs(256, 64 * 64) == (64, 16)
    assert settings.pairs(512, 64 * 64) == (32, 8), "blocks of four pairs take half of the memory"
    assert dataclasses.replace(settings, max_pairs=16).pairs(4096, 64) == (16, 8)


def test_default_layers_are_the_last_of_each_resolution() -> None:
    assert default_layers(wide()) == LAYERS
    assert default_layers(cp.load("dcgan-faces")) == ["main.2", "main.5", "main.8", "main.11"]


def chain_of(*widths: int) -> cp.GeneratorAdapter:
    stages: list[nn.Module] = []
    with seeded(5):
        for i, (into, out) in enumerate(itertools.pairwise((4, *widths, 3))):
            stages += [
                nn.ConvTranspose2d(into, out, 4, *((2, 1) if i else ())),
                nn.ReLU() if i < len(widths) else nn.Tanh(),
            ]
        return cp.wrap(nn.Sequential(*stages), lambda n, rng: torch.randn(n, 4, 1, 1, generator=rng))


def test_default_layers_with_too_few_channels_are_left_out_and_said() -> None:
    generator, told = chain_of(5, 2), list[str]()
    assert [layer.name for layer in study_layers(generator, None, 3, told.append)] == ["1"]
    assert told == ["layer 3 is left out: 2 channels cannot make 3 modules"]
    with pytest.raises(cp.ProbeError, match="3 modules asked of layer '3', which has 2 channels"):
        study_layers(generator, ["1", "3"], 3)
    with pytest.raises(cp.ProbeError, match="9 modules asked of layer '1', which has 5 channels"):
        cp.report(generator, n_modules=9)


def test_maps_of_large_images_are_averaged_down() -> None:
    class Of:
        def __init__(self, *size: int) -> None:
            self.image_size = (3, *size)

    sizes = {(64, 64): None, (1024, 1024): (64, 64), (96, 128): (48, 64), (97, 97): None, (28, 28): None}
    for size, expected in sizes.items():
        assert map_size(Of(*size)) == expected  # type: ignore[arg-type]
    assert map_size(Of(64, 64), 128) is None  # type: ignore[arg-type]
    assert map_size(Of(64, 64), 256) == (32, 32)  # type: ignore[arg-type]
    assert map_size(Of(1024, 1024), 512) == (32, 32)  # type: ignore[arg-type]
    assert map_size(Of(16, 16), 10**6) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n_modules": 0}, "n_modules is 0"),
        ({"seed": -1}, "the seed is -1"),
        ({"max_pairs": 2}, "2 pairs asked for; a report needs at least 16"),
        ({"expected_ari": 2.0}, "expected_ari is 2.0"),
    ],
)
def test_wrong_settings_are_said_before_anything_runs(wrong: dict[str, int], message: str, tmp_path: Path) -> None:
    with pytest.raises(cp.ProbeError, match=message):
        cp.report(wide(), out=tmp_path / "r", **wrong)  # type: ignore[arg-type]
    assert not (tmp_path / "r").exists()


@pytest.mark.usefixtures("undrawn")
def test_an_earlier_report_makes_way_and_other_files_stay(study: Study, tmp_path: Path) -> None:
    def files(folder: Path) -> set[str]:
        return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}

    (tmp_path / "figures").mkdir()
    theirs = {"maps-mine.safetensors", "figures/mine.png", "modules-mine.json"}
    for name in theirs:
        (tmp_path / name).write_text("the user's own")
    write_report(study, tmp_path)
    assert theirs < files(tmp_path), "no study.json was there, so nothing of a report was"
    one = dataclasses.replace(study, layers=study.layers[:1])
    report = write_report(one, tmp_path)
    write_report(one, tmp_path / "clean")
    assert files(tmp_path / "clean") == {name for name in files(tmp_path) if "clean/" not in name} - theirs
    assert {path.relative_to(tmp_path).as_posix() for path in [*report.figures, *report.results, report.page]} == (
        files(tmp_path / "clean") - {"study.json"}
    )


@pytest.mark.parametrize("content", ["{}", "[]", "no JSON", '{"files": 3}', '{"files": ["../precious.png", "a.txt"]}'])
@pytest.mark.usefixtures("undrawn")
def test_a_study_json_of_something_else_removes_nothing(study: Study, tmp_path: Path, content: str) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    for path in (tmp_path / "precious.png", folder / "a.txt", folder / "maps-a.safetensors"):
        path.write_text("precious")
    (folder / "study.json").write_text(content)
    write_report(dataclasses.replace(study, layers=study.layers[:1]), folder)
    assert [
        path.name for path in sorted(tmp_path.rglob("*")) if path.is_file() and path.read_bytes() == b"precious"
    ] == [
        "a.txt",
        "maps-a.safetensors",
        "precious.png",
    ]


class Collector(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.images: list[dict[str, str | None]] = []
        self.links: list[str] = []
        self.anchors: list[str] = []
        self.captions = 0
        self.chapters = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.anchors += [value for key, value in attrs if key == "id" and value]
        if tag == "img":
            self.images.append(found)
        if tag in ("a", "link", "script"):
            self.links.append(found.get("href") or found.get("src") or "")
        self.captions += tag == "figcaption"
        self.chapters += tag == "details"


def test_the_report_is_one_file_with_each_picture_once(report: Path) -> None:
    page = Collector()
    page.feed(report.read_text())
    pictures = [path for path in (report.parent / "figures").iterdir() if path.is_file()]
    first = 2 * 2 * 3  # modules, examples, and base, source and hybrid
    assert len(page.images) == page.captions == len(pictures) + first == 2 * 4 + first
    inside = []
    for image in page.images:
        kind, _, data = (image["src"] or "").partition(",")
        assert kind in ("data:image/png;base64", "data:image/webp;base64", "data:image/svg+xml;base64")
        assert image["alt"]
        inside.append(base64.b64decode(data))
    assert {picture.read_bytes() for picture in pictures} == set(inside[first:])
    assert all(link.startswith("#") and link[1:] in page.anchors for link in page.links if link)
    assert page.chapters == 2 + 2  # layers, the generator, and how it was made
    text = report.read_text()
    assert 'name="viewport"' in text
    assert "made up for a test &lt;b&gt;" in text


def test_little_is_read_before_the_first_fold(report: Path) -> None:
    text = report.read_text()
    before = text[text.index("<body") : text.index("<details")]
    assert before.index("<img") < before.index("<table")
    words = re.sub(r"<[^>]*>", " ", before).split()
    assert len(words) < 300


def test_the_report_says_how_well_modules_come_back(study: Study, report: Path) -> None:
    text, best = report.read_text(), study.layers[0]
    assert f"(adjusted Rand index {best.expected_ari:.2f})" in text
    assert f"{100 * best.kept:.0f} % of the channels are expected" in text
    total = sum(units.size for units in best.modules)
    chance = sum(units.size * units.size for units in best.modules) / total**2
    assert f"and {100 * chance:.0f} % would by chance" in text
    for layer in study.layers:
        assert layer.other is not None
        labels = layer.other.labels_
        if len({*labels[labels >= 0].tolist()}) == 1:
            assert "all channels are in one module" in text
        else:
            assert f"adjusted Rand index {layer.other.expected_ari_:.2f} instead of {layer.expected_ari:.2f}" in text


@pytest.mark.usefixtures("undrawn")
def test_modules_that_are_noise_are_said_first_and_have_no_names(study: Study, tmp_path: Path) -> None:
    (layer, *_) = study.layers
    finder = cp.ModuleFinder(2).fit(
        dataclasses.replace(layer.maps, block_sums=torch.rand(len(layer.maps), 8, *layer.maps.maps.shape[1:]))
    )
    with pytest.warns(UserWarning, match="another sample"):
        assert finder.expected_ari_ < 0.4
    noise = dataclasses.replace(study, layers=(dataclasses.replace(layer, finder=finder, quality=None),))
    text = write_report(noise, tmp_path).page.read_text()
    body = text[text.index("<body") :]
    assert body.index("Take the groups below for noise") < body.index("<img")
    assert 'class="badge poor">not reproducible<' in body
    assert noise.layers[0].names(generic_regions(*layer.hybrids.base.shape[-2:])) == ["module 1", "module 2"]


class Noise(nn.Module):
    """Each hidden feature acts on every pixel: nothing is local."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.pixels = nn.Linear(16, 40), nn.Linear(40, 3 * 32 * 32)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.pixels(torch.relu(self.hidden(z)))).view(-1, 3, 32, 32)


@pytest.mark.filterwarnings("ignore:NMF stopped")
@pytest.mark.usefixtures("undrawn")
def test_one_group_of_all_channels_is_no_reproducible_module(tmp_path: Path) -> None:
    """Its adjusted Rand index is 1, with whatever latents, because there is nothing to disagree about."""
    with seeded(0):
        noise = Noise()
    generator = cp.wrap(noise, lambda n, rng: torch.randn(n, 16, generator=rng), layers="hidden")
    maps = cp.InfluenceMap(generator, "hidden").attribute(n_pairs=32, blocks=16, normalise="pair")
    one_group = cp.ModuleFinder(3, features="l2").fit(maps)
    assert {*one_group.labels_.tolist()} == {0}
    assert one_group.expected_ari_ == 1
    study = run_study(generator, settings=Settings(max_pairs=32))
    (layer,) = study.layers
    assert layer.finder.features == "bits", "the other method's three groups say more"
    assert layer.expected_ari < 0.8
    alone = dataclasses.replace(layer, finder=one_group)
    assert np.isnan(alone.expected_ari)
    page = write_report(dataclasses.replace(study, layers=(alone,)), tmp_path).page.read_text()
    screen = page.partition("<details")[0]
    assert "No layer has modules" in screen
    assert ">one group<" in screen
    assert ">reproducible<" not in screen


def test_a_title_names_a_part_only_where_the_map_clearly_shows_it() -> None:
    assert screen._called("eyes", 0, Shown("eyes", 0.8)) == ("eyes", "whose map matches this part: correlation 0.80")
    title, part = screen._called("resembles eyes", 1, Shown("eyes", 0.4))
    assert (title, part) == ("module 2", "on no part that has a name; nearest: eyes (0.40)")
    assert screen._called("module 3", 2, Shown(None, 0.1)) == ("module 3", "on no part that has a name")


def test_the_outline_runs_around_the_area_and_leaves_the_rest() -> None:
    area = np.zeros((8, 8), np.bool_)
    area[2:6, 0:5] = True  # at the picture's edge there is no line
    lined = screen._outlined(np.full((8, 8, 1), 0.5), area)
    inner, outer = (lined == screen._INNER).all(-1), (lined == screen._OUTER).all(-1)
    for y, x in itertools.product(range(8), range(8)):
        near = [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
        crossed = any(0 <= j < 8 and 0 <= i < 8 and area[j, i] != area[y, x] for j, i in near)
        assert inner[y, x] == (crossed and area[y, x])
        assert outer[y, x] == (crossed and not area[y, x])
        assert inner[y, x] or outer[y, x] or (lined[y, x] == 0.5).all()


def test_the_same_call_gives_the_same_bytes(study: Study, report: Path, tmp_path: Path) -> None:
    again = run_study(wide(), LAYERS, settings=SETTINGS)
    write_report(again, tmp_path, card="made up for a test <b>")
    files = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(report.parent) for path in report.parent.rglob("*") if path.is_file())
    for file in files:
        assert (tmp_path / file).read_bytes() == (report.parent / file).read_bytes(), file
    different = run_study(wide(), LAYERS[:1], settings=dataclasses.replace(SETTINGS, seed=5))
    assert not any(torch.equal(different.layers[0].maps.maps, layer.maps.maps) for layer in study.layers)


def test_results_beside_the_report_load(report: Path, study: Study) -> None:
    for layer in study.layers:
        name = layer.layer.name
        assert torch.equal(cp.InfluenceMaps.load(report.parent / f"maps-{name}.safetensors").maps, layer.maps.maps)
        assert cp.Hybrids.load(report.parent / f"hybrids-{name}.safetensors").images.shape[0] == 2
        modules = json.loads((report.parent / f"modules-{name}.json").read_text())
        assert modules["labels"] == layer.finder.labels_.tolist()
        rows = (report.parent / f"channels-{name}.csv").read_text().splitlines()
        assert len(rows) == 1 + layer.layer.channels


def test_no_clock_time_is_in_any_text_file(report: Path) -> None:
    for path in [report, *report.parent.glob("*.json")]:
        text = re.sub(r"base64,[^\"]*", "", path.read_text())
        assert not re.search(r"\b20\d\d-\d\d-\d\d\b|\b\d\d:\d\d:\d\d\b", text), path.name


@pytest.mark.filterwarnings("ignore::counterfactual_probe.modules.confidence.ExpectedDisagreement")
@pytest.mark.parametrize("features", ["bits", "l2", "pca"])
def test_modules_are_of_the_features_that_were_asked_for(features: Kind, tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, features=features)
    study = run_study(wide(), ["main.3"], settings=settings)
    (layer,) = study.layers
    assert layer.finder.features == features
    assert layer.other is not None
    assert layer.other.features == ("l2" if features == "bits" else "bits")
    page = write_report(study, tmp_path).page.read_text()
    assert "shown is the method that was asked for" in page
    assert "the more reproducible one is shown" not in page


def test_features_that_there_are_not_are_refused_before_the_study() -> None:
    with pytest.raises(cp.ProbeError, match="features is 'l1'; give one of 'bits', 'l2', 'pca'"):
        cp.report(wide(), features="l1")  # type: ignore[arg-type]
