"""The study and its report: right numbers in the right places, self-contained, the same every time."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import counterfactual_probe as cp
from counterfactual_probe.generator import latents as lt
from counterfactual_probe.registry.regions import generic_regions
from counterfactual_probe.reporting.page import Page, write_page
from counterfactual_probe.reporting.papers.chapters import papers_chapters
from counterfactual_probe.reporting.papers.overview import describe_overview
from counterfactual_probe.reporting.papers.study import PapersSettings, PapersStudy, run_papers_study, shown_pairs
from support.toys import seeded
from support.wide import wide

LAYERS = ["main.1", "main.3"]
SETTINGS = PapersSettings(n_pairs=4, n_modules=2, counts=(2, 3), repetitions=2, shown=3)


@pytest.fixture(scope="module")
def study() -> PapersStudy:
    return run_papers_study(wide(), LAYERS, settings=SETTINGS)


def test_its_parts_are_those_of_the_library(study: PapersStudy) -> None:
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


def test_one_source_serves_all_bases_and_the_control_mixes_as_much(study: PapersStudy) -> None:
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
        run_papers_study(wide(), ["main.3"], settings=SETTINGS)
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


def test_successive_layers_set_matched_modules_of_both(study: PapersStudy) -> None:
    (cross,) = study.successive
    assert cross.layers == ("main.1", "main.3")
    for units, (first, second) in zip(cross.match.units, cross.match.pairs, strict=True):
        assert units["main.1"] == study.layers[0].modules[first]["main.1"]
        assert units["main.3"] == study.layers[1].modules[second]["main.3"]


def test_more_modules_than_channels_is_said_before_anything_runs() -> None:
    with pytest.raises(cp.ProbeError, match=r"10 modules asked of layer 'main.3', which has 9 channels"):
        run_papers_study(wide(), ["main.3"], settings=PapersSettings(n_modules=10))


def chain_of(*widths: int) -> cp.GeneratorAdapter:
    stages: list[nn.Module] = []
    with seeded(5):
        for i, (into, out) in enumerate(itertools.pairwise((4, *widths, 3))):
            stages += [
                nn.ConvTranspose2d(into, out, 4, *((2, 1) if i else ())),
                nn.ReLU() if i < len(widths) else nn.Tanh(),
            ]
        return cp.wrap(nn.Sequential(*stages), lambda n, rng: torch.randn(n, 4, 1, 1, generator=rng))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n_modules": 0}, "n_modules is 0"),
        ({"seed": -1}, "the seed is -1"),
        ({"repetitions": -1}, "repetitions is -1"),
        ({"n_pairs": 1}, "1 pair asked for; a study needs at least 2"),
    ],
)
def test_wrong_settings_are_said_before_anything_runs(wrong: dict[str, int], message: str) -> None:
    with pytest.raises(cp.ProbeError, match=message):
        dataclasses.replace(SETTINGS, **wrong).require()  # type: ignore[arg-type]


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("pairs", [4, 16])  # 16 are enough for blocks, and so for the choice of K
def test_a_layer_with_too_few_channels_for_subsets_compares_draws_alone(tmp_path: Path, pairs: int) -> None:
    told: list[str] = []
    study = run_papers_study(
        chain_of(4), settings=PapersSettings(n_pairs=pairs, repetitions=2, shown=2), say=told.append
    )
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
    page = Page("Papers", papers_chapters(study, generic_regions(8, 8)), {})
    text = re.sub(r"base64,[^\"]*", "", write_page(page, tmp_path, "page.html").page.read_text())
    assert "Subsets of the channels were not compared: not enough channels." in text
    assert text.count("<td>not enough channels</td>") == 2
    assert not re.search(r"\bnan\b", text)
    content = json.loads((tmp_path / "papers-modules-1.json").read_text(), parse_constant=pytest.fail)
    assert content["label_consistency"] == {"nmf": None, "kmeans": None}


def test_the_choice_of_k_is_that_of_choose() -> None:
    settings = PapersSettings(n_pairs=16, n_modules=2, counts=(2, 3), repetitions=2, shown=1)
    generator = wide()
    (layer,) = run_papers_study(generator, ["main.3"], settings=settings).layers
    maps = cp.InfluenceMap(generator, "main.3").attribute(n_pairs=16, seed=0, blocks=8)
    found = cp.ModuleFinder.choose(maps, (2, 3), repetitions=2)
    assert layer.selection is not None
    for name in ("n_modules", "consistency", "expected_ari", "variance_explained"):
        assert getattr(layer.selection, name).tolist() == getattr(found, name).tolist()


def test_the_report_claims_what_its_numbers_show(study: PapersStudy) -> None:
    sentence = describe_overview(study, [], "").figures[0].sentence
    falling = 0
    for layer in study.layers:
        means = [float(maps.influence.mean()) for maps in layer.influence_by_count.values()]
        falling += means[-1] < means[0]
    assert f"in {falling} of 2 layers it is smaller with the most modules than with the fewest" in sentence
    assert "since" not in sentence
