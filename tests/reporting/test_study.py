"""The study and its report: right numbers in the right places, self-contained, the same every time."""

from __future__ import annotations

import base64
import dataclasses
import itertools
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import counterfactual_probe as cp
from counterfactual_probe.generator import latents as lt
from counterfactual_probe.registry.regions import generic_regions
from counterfactual_probe.reporting import write_report
from counterfactual_probe.reporting.overview import describe_overview
from counterfactual_probe.reporting.study import Settings, Study, default_layers, run_study, shown_pairs, study_layers
from support import toys
from support.toys import seeded


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
    with seeded(3):
        return cp.wrap(Wide(), toys.vectors(5, torch.float32))


LAYERS = ["main.1", "main.3"]
SETTINGS = Settings(n_pairs=4, n_modules=2, counts=(2, 3), repetitions=2, shown=3)


@pytest.fixture(scope="module")
def study() -> Study:
    return run_study(wide(), LAYERS, settings=SETTINGS)


@pytest.fixture(scope="module")
def report(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(study, tmp_path_factory.mktemp("report"), card="made up for a test <b>").page


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


def test_every_module_has_a_control_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one seed for all, a smaller share is a part of a larger one, and equal shares are the same."""
    used = []
    mix = lt.mix

    def noted(base: Any, source: Any, share: float, seed: int) -> Any:
        used.append((share, seed))
        return mix(base, source, share, seed)

    monkeypatch.setattr(lt, "mix", noted)
    for _ in range(2):
        run_study(wide(), ["main.3"], settings=SETTINGS)
    assert used[:2] == used[2:]
    seeds = [seed for _, seed in used[:2]]
    assert len(set(seeds)) == 2
    base, source = torch.zeros(1, 100), torch.ones(1, 100)
    small, large = (mix(base, source, share, seed) for share, seed in zip((0.3, 0.5), seeds, strict=True))
    assert isinstance(small, Tensor)
    assert isinstance(large, Tensor)
    assert (small > large).any()


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
        assert units["main.1"] == study.layers[0].modules[first]["main.1"]
        assert units["main.3"] == study.layers[1].modules[second]["main.3"]


def test_default_layers_are_the_last_of_each_resolution() -> None:
    assert default_layers(wide()) == LAYERS
    assert default_layers(cp.load("dcgan-faces")) == ["main.2", "main.5", "main.8", "main.11"]


def test_more_modules_than_channels_is_said_before_anything_runs() -> None:
    with pytest.raises(cp.ProbeError, match=r"10 modules asked of layer 'main.3', which has 9 channels"):
        run_study(wide(), ["main.3"], settings=Settings(n_modules=10))


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
    layers = study_layers(generator, None, Settings(n_modules=3), told.append)
    assert [layer.name for layer in layers] == ["1"]
    assert told == ["layer 3 is left out: 2 channels are too few for 3 modules"]
    with pytest.raises(cp.ProbeError, match="3 modules asked of layer '3', which has 2 channels"):
        study_layers(generator, ["1", "3"], Settings(n_modules=3))
    with pytest.raises(cp.ProbeError, match="9 modules asked of layer '1', which has 5 channels"):
        study_layers(generator, None, Settings(n_modules=9))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n_modules": 0}, "n_modules is 0"),
        ({"seed": -1}, "the seed is -1"),
        ({"repetitions": -1}, "repetitions is -1"),
    ],
)
def test_wrong_settings_are_said_before_anything_runs(wrong: dict[str, int], message: str) -> None:
    with pytest.raises(cp.ProbeError, match=message):
        study_layers(wide(), None, dataclasses.replace(SETTINGS, **wrong))  # type: ignore[arg-type]


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("pairs", [4, 16])  # 16 are enough for blocks, and so for the choice of K
def test_a_layer_with_too_few_channels_for_subsets_compares_draws_alone(tmp_path: Path, pairs: int) -> None:
    told: list[str] = []
    study = run_study(chain_of(4), settings=Settings(n_pairs=pairs, repetitions=2, shown=2), say=told.append)
    (layer,) = study.layers
    assert "  1 has too few channels to compare subsets of them; only the two samples are compared" in told
    assert layer.stability["nmf"].n_modules.tolist() == [2, 3, 4]
    assert layer.stability["kmeans"].consistency.shape == (3, 0)
    assert (layer.selection is not None) == (pairs == 16)
    if layer.selection is not None:
        assert layer.selection.consistency.shape == (3, 0)
        assert layer.selection.at(3) == layer.expected_ari
    assert not np.isnan(layer.at("ari", 3))
    assert np.isnan(layer.at("consistency", 3))
    text = re.sub(r"base64,[^\"]*", "", write_report(study, tmp_path).page.read_text())
    assert "Subsets of the channels were not compared: not enough channels." in text
    assert text.count("<td>not enough channels</td>") == 2
    assert not re.search(r"\bnan\b", text)
    content = json.loads((tmp_path / "modules-1.json").read_text(), parse_constant=pytest.fail)
    assert content["label_consistency"] == {"nmf": None, "kmeans": None}


def test_the_choice_of_k_is_that_of_choose() -> None:
    settings = Settings(n_pairs=16, n_modules=2, counts=(2, 3), repetitions=2, shown=1)
    generator = wide()
    (layer,) = run_study(generator, ["main.3"], settings=settings).layers
    maps = cp.InfluenceMap(generator, "main.3").attribute(n_pairs=16, seed=0, blocks=8)
    found = cp.ModuleFinder.choose(maps, (2, 3), repetitions=2)
    assert layer.selection is not None
    for name in ("n_modules", "consistency", "expected_ari", "variance_explained"):
        assert getattr(layer.selection, name).tolist() == getattr(found, name).tolist()


def test_an_earlier_report_makes_way_and_other_files_stay(study: Study, tmp_path: Path) -> None:
    def files(folder: Path) -> set[str]:
        return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}

    (tmp_path / "figures").mkdir()
    theirs = {"maps-mine.safetensors", "figures/mine.png", "modules-mine.json"}
    for name in theirs:
        (tmp_path / name).write_text("the user's own")
    write_report(study, tmp_path)
    assert theirs < files(tmp_path), "no study.json was there, so nothing of a report was"
    one = dataclasses.replace(study, layers=study.layers[:1], successive=())
    report = write_report(one, tmp_path)
    write_report(one, tmp_path / "clean")
    assert files(tmp_path / "clean") == {name for name in files(tmp_path) if "clean/" not in name} - theirs
    assert {path.relative_to(tmp_path).as_posix() for path in [*report.figures, *report.results, report.page]} == (
        files(tmp_path / "clean") - {"study.json"}
    )


@pytest.mark.parametrize("content", ["{}", "[]", "no JSON", '{"files": 3}', '{"files": ["../precious.png", "a.txt"]}'])
def test_a_study_json_of_something_else_removes_nothing(study: Study, tmp_path: Path, content: str) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    for path in (tmp_path / "precious.png", folder / "a.txt", folder / "maps-a.safetensors"):
        path.write_text("precious")
    (folder / "study.json").write_text(content)
    write_report(dataclasses.replace(study, layers=study.layers[:1], successive=()), folder)
    assert [
        path.name for path in sorted(tmp_path.rglob("*")) if path.is_file() and path.read_bytes() == b"precious"
    ] == [
        "a.txt",
        "maps-a.safetensors",
        "precious.png",
    ]


def test_the_report_claims_what_its_numbers_show(study: Study) -> None:
    sentence = describe_overview(study, [], "").figures[0].sentence
    falling = 0
    for layer in study.layers:
        means = [float(maps.influence.mean()) for maps in layer.influence_by_count.values()]
        falling += means[-1] < means[0]
    assert f"in {falling} of 2 layers it is smaller with the most modules than with the fewest" in sentence
    assert "since" not in sentence


def test_the_report_says_how_its_masks_were_made(study: Study, tmp_path: Path) -> None:
    faces = cp.pretrained("dcgan-faces").regions
    assert faces is not None
    note = faces().note
    assert "drawn by hand on the mean face" in note
    assert "whatever is neither eyes and mouth nor frame" in note
    generic = generic_regions(*study.layers[0].maps[0].maps.shape[1:])
    one = dataclasses.replace(study, layers=study.layers[:1], successive=())
    assert note not in write_report(one, tmp_path, regions=generic).page.read_text()
    with_note = dataclasses.replace(generic, note=note)
    assert note in write_report(one, tmp_path, regions=with_note).page.read_text()


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
    assert "two independent samples (seeds 0 and 1)" in text


def test_the_same_study_gives_the_same_bytes(report: Path, tmp_path: Path) -> None:
    again = run_study(wide(), LAYERS, settings=SETTINGS)
    write_report(again, tmp_path, card="made up for a test <b>")
    files = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(report.parent) for path in report.parent.rglob("*") if path.is_file())
    for file in files:
        assert (tmp_path / file).read_bytes() == (report.parent / file).read_bytes(), file
    different = run_study(wide(), LAYERS[:1], settings=dataclasses.replace(SETTINGS, seed=5))
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
