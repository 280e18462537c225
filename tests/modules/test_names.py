"""Modules carry names: numbers at first, words where somebody gives them, in figures, tables and files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import counterfactual_probe as cp
from counterfactual_probe.registry.naming import module_names
from counterfactual_probe.registry.regions import Regions
from support import saved_results
from support.toys import PLAIN


@pytest.fixture(scope="module")
def maps() -> cp.InfluenceMaps:
    return cp.InfluenceMap(PLAIN.generator(), "main.2").attribute(n_pairs=4)


def rows(hybrids: cp.Hybrids) -> list[str]:
    return [text.get_text() for text in hybrids.plot().axes.get_yticklabels()][2:]


def hybridized(units: object) -> cp.Hybrids:
    generator = PLAIN.generator()
    z1, z2 = generator.sample(2, seed=0), generator.sample(2, seed=1)
    return cp.Hybridizer(generator, "main.2").hybridize(z1, z2, units=units)  # type: ignore[arg-type]


def test_hybrids_by_modules_are_labelled_with_their_names(maps: cp.InfluenceMaps) -> None:
    finder = cp.ModuleFinder(2).fit(maps)
    assert finder.names_ == ("module 1", "module 2")
    hybrids = hybridized(finder.modules_)
    assert rows(hybrids) == ["module 1", "module 2"]
    assert [row["units"] for row in hybrids.records()] == ["module 1", "module 2"]
    assert finder.name_modules(["eyes and mouth", "frame"]) is finder
    assert rows(hybridized(finder.modules_)) == ["eyes and mouth", "frame"]
    assert [text.get_text() for text in finder.plot().axes.get_xticklabels()] == [
        f"{name}\n{units.size} channels" for name, units in zip(finder.names_, finder.unit_sets(), strict=True)
    ]
    assert {row["module"] for row in finder.records()} == {"eyes and mouth", "frame"}
    with pytest.raises(cp.ProbeError, match="1 name given for 2 modules; give one each"):
        finder.name_modules(["one"])


def test_sets_without_a_name_are_few_channels_or_a_number() -> None:
    assert rows(hybridized([[0], [0, 3, 1], [0, 1, 2, 3]])) == ["main.2: 0", "main.2: 0, 3, 1", "set 3 (4 channels)"]


def test_a_name_is_no_part_of_a_set() -> None:
    units = cp.UnitSet({"main.2": (0, 3)}, "eyes")
    same = cp.UnitSet({"main.2": (0, 3)})
    assert units == same == {"main.2": (0, 3)}
    assert hash(units) == hash(same)
    assert units.named("mouth").name == "mouth"


def test_modules_are_named_by_the_regions_that_they_show() -> None:
    finder = saved_results.finder()
    top = np.zeros((8, 8), bool)
    top[:4] = True
    finder.name_modules(Regions({"top": top, "bottom": ~top}))
    assert [units.name for units in finder.unit_sets() if units == {"main.2": (0, 2, 4)}] == ["top"]
    assert sorted(finder.names_) == ["bottom", "top"]
    finder.name_modules(Regions({"top": top}))
    assert sorted(finder.names_) == ["all but top", "top"]
    both = module_names(np.stack([top, top]).astype(float), Regions({"top": top}))
    assert both == ["top (module 1)", "top (module 2)"]
    with pytest.raises(cp.ProbeError, match=r"the templates are \(8, 8\) and the regions \(4, 8\)"):
        finder.name_modules(Regions({"top": top[:4]}))


def test_names_that_were_given_are_kept_in_files(maps: cp.InfluenceMaps, tmp_path: Path) -> None:
    finder = cp.ModuleFinder(2).fit(maps)
    numbered, hybrids = finder.save(tmp_path / "numbered"), hybridized(finder.modules_)
    assert "names" not in numbered.read_bytes().decode(errors="ignore")
    # As earlier versions wrote them: "module 1" is no name that anybody gave.
    plain = hybridized([dict(units) for units in finder.unit_sets()])
    assert hybrids.save(tmp_path / "a").read_bytes() == plain.save(tmp_path / "b").read_bytes()
    finder.name_modules(["eyes", "frame"])
    loaded = cp.ModuleFinder.load(finder.save(tmp_path / "named"))
    assert loaded.names_ == ("eyes", "frame")
    assert [units.name for units in loaded.unit_sets()] == ["eyes", "frame"]
    again = cp.Hybrids.load(hybridized(finder.modules_).save(tmp_path / "hybrids"))
    assert rows(again) == ["eyes", "frame"]
    assert torch.equal(again.images, hybrids.images)


def test_maps_number_their_channels(maps: cp.InfluenceMaps) -> None:
    shown = [text.get_text() for text in maps.plot().axes.texts]
    order = torch.argsort(maps.influence, descending=True, stable=True).tolist()
    assert shown == [str(maps.units[place]["main.2"][0]) for place in order]
    modules = cp.ModuleFinder(2).fit(maps).modules_
    named = cp.InfluenceMap(PLAIN.generator(), "main.2").attribute(n_pairs=2, units=modules)
    assert sorted(text.get_text() for text in named.plot().axes.texts) == ["module 1", "module 2"]
