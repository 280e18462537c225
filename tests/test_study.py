"""The study and its report: right numbers in the right places, self-contained, the same every time."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import counterfactual_probe as cp
import toys
from counterfactual_probe import latents as lt
from counterfactual_probe.report import write_report
from counterfactual_probe.study import Settings, Study, default_layers, run_study, shown_pairs


class Wide(nn.Module):
    """Enough channels to be split into thirds."""

    def __init__(self) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.ConvTranspose2d(5, 12, 4),
            nn.ReLU(),
            nn.ConvTranspose2d(12, 9, 4, 2, 1),
            nn.ReLU(),
            nn.ConvTranspose2d(9, 3, 4, 2, 1),
            nn.Tanh(),
        )

    def forward(self, z: Tensor) -> Tensor:
        image: Tensor = self.main(z[:, :, None, None])
        return image


def wide() -> cp.GeneratorAdapter:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return cp.wrap(Wide(), toys.vectors(5, torch.float32))


LAYERS = ["main.1", "main.3"]
SETTINGS = Settings(n_pairs=4, n_modules=2, counts=(2, 3), repetitions=2, shown=3)


@pytest.fixture(scope="module")
def study() -> Study:
    return run_study(wide(), LAYERS, settings=SETTINGS)


@pytest.fixture(scope="module")
def report(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(study, tmp_path_factory.mktemp("report"), card="made up for a test <b>")


def test_its_parts_are_those_of_the_library(study: Study) -> None:
    generator = wide()
    layer = study.layers[1]
    first = cp.InfluenceMap(generator, "main.3").attribute(n_pairs=4, seed=0)
    second = cp.InfluenceMap(generator, "main.3").attribute(n_pairs=4, seed=1)
    assert torch.equal(layer.maps[0].maps, first.maps)
    assert torch.equal(layer.maps[1].maps, second.maps)
    assert not torch.equal(first.maps, second.maps)
    finder = cp.ModuleFinder(2).fit(first)
    assert layer.finder.labels_.tolist() == finder.labels_.tolist()
    direct = finder.stability(first, n_modules=[2, 3], repetitions=2, other=second)
    assert direct.ari is not None
    np.testing.assert_array_equal(layer.stability["nmf"].consistency, direct.consistency)
    assert layer.at("ari", 2) == direct.ari[0]
    assert layer.at("consistency", 3) == direct.consistency[1].mean()
    z1, z2 = shown_pairs(generator, SETTINGS)
    hybrids = cp.Hybridizer(generator, "main.3").hybridize(z1, z2, units=finder.modules_)
    assert torch.equal(layer.hybrids.images, hybrids.images)


def test_one_source_serves_all_bases_and_the_control_mixes_as_much(study: Study) -> None:
    layer = study.layers[0]
    assert layer.one_source.source is not None
    assert torch.equal(layer.one_source.source[0], layer.one_source.source[2])
    assert not torch.equal(layer.one_source.base[0], layer.one_source.base[2])
    assert layer.mixed.shape == layer.one_source.images.shape
    assert not torch.equal(layer.mixed, layer.one_source.images)


def test_mixing_takes_the_asked_share_of_coordinates_and_keeps_classes() -> None:
    base = {"z": torch.zeros(3, 4, 5), "y": torch.tensor([0, 1, 2])}
    source = {"z": torch.ones(3, 4, 5), "y": torch.tensor([7, 7, 7])}
    mixed = lt.mix(base, source, 0.25, seed=0)
    assert isinstance(mixed, dict)
    assert mixed["z"].flatten(1).sum(1).tolist() == [5, 5, 5]
    assert torch.equal(mixed["z"][0], mixed["z"][1])
    assert mixed["y"].tolist() == [0, 1, 2]
    none, every = lt.mix(base, source, 0.0, seed=0), lt.mix(base, source, 1.0, seed=0)
    assert isinstance(none, dict)
    assert isinstance(every, dict)
    assert torch.equal(none["z"], base["z"])
    assert torch.equal(every["z"], source["z"])
    other = lt.mix(base, source, 0.25, seed=1)
    assert isinstance(other, dict)
    assert not torch.equal(other["z"], mixed["z"])


def test_successive_layers_set_matched_modules_of_both(study: Study) -> None:
    (cross,) = study.successive
    assert cross.layers == ("main.1", "main.3")
    for units, (first, second) in zip(cross.match.units, cross.match.pairs, strict=True):
        assert units["main.1"] == study.layers[0].finder.modules_[first]["main.1"]
        assert units["main.3"] == study.layers[1].finder.modules_[second]["main.3"]


def test_default_layers_are_the_last_of_each_resolution() -> None:
    assert default_layers(wide()) == LAYERS
    assert default_layers(cp.load("dcgan-faces")) == ["main.2", "main.5", "main.8", "main.11"]


def test_more_modules_than_channels_is_said_before_anything_runs() -> None:
    with pytest.raises(cp.ProbeError, match=r"10 modules asked of layer 'main.3', which has 9 channels"):
        run_study(wide(), ["main.3"], settings=Settings(n_modules=10))


class Collector(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.images: list[dict[str, str | None]] = []
        self.links: list[str] = []
        self.anchors: list[str] = []
        self.captions = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.anchors += [value for key, value in attrs if key == "id" and value]
        if tag == "img":
            self.images.append(found)
        if tag in ("a", "link", "script"):
            self.links.append(found.get("href") or found.get("src") or "")
        self.captions += tag == "figcaption"


def test_the_report_is_one_file_with_its_pictures_inside(report: Path) -> None:
    page = Collector()
    page.feed(report.read_text())
    pictures = sorted((report.parent / "figures").glob("*.png"))
    assert len(page.images) == page.captions == len(pictures) == 2 + 2 * 7 + 1
    inside = set()
    for image in page.images:
        kind, _, data = (image["src"] or "").partition(",")
        assert kind == "data:image/png;base64"
        assert image["alt"]
        inside.add(base64.b64decode(data))
    assert inside == {picture.read_bytes() for picture in pictures}
    assert all(link.startswith("#") and link[1:] in page.anchors for link in page.links)
    text = report.read_text()
    assert 'name="viewport"' in text
    assert "made up for a test &lt;b&gt;" in text


def test_the_report_says_how_well_modules_come_back(study: Study, report: Path) -> None:
    text = report.read_text()
    for layer in study.layers:
        assert f"{layer.at('ari', 2):.2f} (1: the same modules, 0: chance)" in text
    assert "two independent draws (seeds 0 and 1)" in text


def test_the_same_study_gives_the_same_bytes(report: Path, tmp_path: Path) -> None:
    again = run_study(wide(), LAYERS, settings=SETTINGS)
    write_report(again, tmp_path, card="made up for a test <b>")
    files = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(report.parent) for path in report.parent.rglob("*") if path.is_file())
    for file in files:
        assert (tmp_path / file).read_bytes() == (report.parent / file).read_bytes(), file
    different = run_study(wide(), LAYERS[:1], settings=Settings(**{**vars(SETTINGS), "seed": 5}))
    assert not torch.equal(different.layers[0].maps[0].maps, again.layers[0].maps[0].maps)


def test_results_beside_the_report_load(report: Path, study: Study) -> None:
    maps = cp.InfluenceMaps.load(report.parent / "maps-main.3-draw2.safetensors")
    assert torch.equal(maps.maps, study.layers[1].maps[1].maps)
    assert cp.Hybrids.load(report.parent / "hybrids-main.1+main.3.safetensors").images.shape[0] == 2
    assert cp.Stability.load(report.parent / "stability-main.1-kmeans.safetensors").provenance["method"] == "kmeans"
    modules = json.loads((report.parent / "modules-main.3.json").read_text())
    assert modules["labels"] == study.layers[1].finder.labels_.tolist()


def test_no_clock_time_is_in_any_text_file(report: Path) -> None:
    for path in [report, *report.parent.glob("*.json")]:
        text = re.sub(r"base64,[^\"]*", "", path.read_text())
        assert not re.search(r"\b20\d\d-\d\d-\d\d\b|\b\d\d:\d\d:\d\d\b", text), path.name
