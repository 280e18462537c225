"""Modules of two layers, matched by their templates (conventions 14)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import counterfactual_probe as cp
from support.planted import Array, planted
from support.toys import PLAIN


def test_modules_of_two_layers_are_matched_by_template() -> None:
    generator = PLAIN.generator()
    maps, truth = planted(3, each=2, side=16)
    order = [2, 0, 1]
    other = np.stack([maps[np.flatnonzero(truth == order[t])[0]] for t in range(3)])[:, :, ::1]

    def as_maps(layer: str, values: Array) -> cp.InfluenceMaps:
        some = cp.InfluenceMap(generator, layer).attribute(n_pairs=1, units=[[i] for i in range(len(values))])
        values_ = torch.from_numpy(values).float()
        return cp.InfluenceMaps(**{**vars(some), "maps": values_})

    first = cp.ModuleFinder(n_modules=3).fit(as_maps("main.2", maps))
    second = cp.ModuleFinder(n_modules=3).fit(as_maps("main.6", other))
    match = cp.match_modules(first, second)
    for (k, j), units, cosine in zip(match.pairs, match.units, match.cosines, strict=True):
        one, two = first.templates_[k].ravel(), second.templates_[j].ravel()
        np.testing.assert_allclose(cosine, one @ two / np.linalg.norm(one) / np.linalg.norm(two))
        assert cosine > 0.9
        assert dict(units) == {**first.unit_sets()[k].channels, **second.unit_sets()[j].channels}
        (channel,) = second.unit_sets()[j]["main.6"]
        assert {int(truth[c]) for c in first.unit_sets()[k]["main.2"]} == {order[channel]}
    assert sorted(j for _, j in match.pairs) == [0, 1, 2]
    wrong = np.mean([first.templates_[k].ravel() @ second.templates_[(j + 1) % 3].ravel() for k, j in match.pairs])
    assert wrong < 0.5


def test_a_match_is_a_result(tmp_path: Path) -> None:
    generator = PLAIN.generator()
    first, second = (
        cp.ModuleFinder(n_modules=2).fit(cp.InfluenceMap(generator, layer).attribute(n_pairs=3))
        for layer in ("main.2", "main.6")
    )
    match = cp.match_modules(first, second)
    for (k, j), one, two, cosine in zip(match.pairs, *match.templates, match.cosines, strict=True):
        np.testing.assert_array_equal(one, first.templates_[k])
        np.testing.assert_array_equal(two, second.templates_[j])
        np.testing.assert_allclose(cosine, (one * two).sum() / np.linalg.norm(one) / np.linalg.norm(two))
    again = cp.ModuleMatch.load(match.save(tmp_path / "match.safetensors"))
    assert again.units == match.units
    assert again.provenance == match.provenance
    for name in ("pairs", "cosines", "templates"):
        np.testing.assert_array_equal(getattr(again, name), getattr(match, name))
    assert match.provenance["first"]["maps"]["layers"] == ["main.2"]
    lines = repr(match).splitlines()
    assert lines[0] == "ModuleMatch(Deconv, main.2, main.6: 2 pairs of modules)"
    assert [line.split()[4] for line in lines[2:4]] == [f"{cosine:.2f}" for cosine in match.cosines]
    assert [item.name for item in match.units] == [f"module {k + 1} with {j + 1}" for k, j in match.pairs]
    _, ax = match.plot()
    titles = [label.get_text() for label in ax.get_xticklabels()]
    assert titles == [
        f"module {k + 1} with {j + 1}\ncos {c:.2f}" for (k, j), c in zip(match.pairs, match.cosines, strict=True)
    ]


def test_layers_with_unequal_numbers_of_modules_are_not_matched() -> None:
    maps, _ = planted(3)
    two, three = (cp.ModuleFinder(n_modules=k).fit(maps) for k in (2, 3))
    with pytest.raises(cp.ProbeError, match=r"shapes \(2, 16, 16\) and \(3, 16, 16\); fit both layers with the same"):
        cp.match_modules(two, three)


def test_modules_of_one_layer_are_matched_over_all_their_channels() -> None:
    """Two fits of the same layer, say from two draws: a matched pair holds the channels of both."""
    generator = PLAIN.generator()
    maps = [cp.InfluenceMap(generator, "main.2").attribute(n_pairs=2, seed=seed) for seed in (0, 1)]
    first, second = (cp.ModuleFinder(n_modules=2).fit(some) for some in maps)
    match = cp.match_modules(first, second)
    for (k, j), units in zip(match.pairs, match.units, strict=True):
        assert set(units["main.2"]) == {*first.unit_sets()[k]["main.2"], *second.unit_sets()[j]["main.2"]}
    z = generator.sample(1)
    cp.Hybridizer(generator, "main.2").hybridize(z, z, units=match.units)


def test_one_factorisation_of_both_layers_has_modules_over_both() -> None:
    """The alternative to matching: channels of two layers that act in one place are in one unit set."""
    maps, truth = planted(3, each=2, side=16)
    generator = PLAIN.generator()
    units: list[dict[str, list[int]]] = [{"main.2" if i < 3 else "main.6": [i % 3]} for i in range(6)]
    some = cp.InfluenceMap(generator, ["main.2", "main.6"]).attribute(n_pairs=1, units=units)
    both = cp.InfluenceMaps(**{**vars(some), "maps": torch.from_numpy(maps).float()})
    finder = cp.ModuleFinder(n_modules=3).fit(both)
    for k, module in enumerate(finder.unit_sets()):
        members = [i for i, unit in enumerate(both.units) if set(unit.items()) <= {
            (layer, (channel,)) for layer, channels in module.items() for channel in channels}]  # fmt: skip
        assert len({int(truth[i]) for i in members}) == 1
        assert sorted(np.flatnonzero(finder.labels_ == k)) == members
    z = generator.sample(2)
    hybrids = cp.Hybridizer(generator, ["main.2", "main.6"]).hybridize(z, z, units=finder.modules_)
    assert hybrids.units == finder.modules_
    every = cp.InfluenceMap(generator, ["main.2", "main.6"]).attribute(n_pairs=3)
    layers = {layer for module in cp.ModuleFinder(2).fit(every).unit_sets() for layer in module}
    assert layers == {"main.2", "main.6"}


def test_a_match_of_named_modules_carries_their_names() -> None:
    generator = PLAIN.generator()
    first, second = (
        cp.ModuleFinder(n_modules=2).fit(cp.InfluenceMap(generator, layer).attribute(n_pairs=3))
        for layer in ("main.2", "main.6")
    )
    names = ["eyes", "mouth"]
    match = cp.match_modules(first.name_modules(names), second)
    assert [item.name for item in match.units] == [f"{names[k]} with module {j + 1}" for k, j in match.pairs]
    match = cp.match_modules(first, second.name_modules(names))
    assert [item.name for item in match.units] == [
        names[k] if k == j else f"{names[k]} with {names[j]}" for k, j in match.pairs
    ]
