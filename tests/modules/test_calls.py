"""Modules along the calls of a layer: planted courses, a literal twin, chance, standard errors, and what is refused."""

from __future__ import annotations

import dataclasses
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from counterfactual_probe.adapters.flow import UNet, flow

import counterfactual_probe as cp
from counterfactual_probe.modules.calls import comparison
from counterfactual_probe.modules.clustering import factorise
from counterfactual_probe.modules.features import MapFeatures
from support.planted import Array
from support.saved_results import ABOUT
from support.toys import seeded

SIDE, EACH, PLACES = 12, 6, 3
# The place of each channel at each of four calls: a third of the channels change theirs between calls 2 and 3.
PLACED = np.tile(np.repeat(np.arange(PLACES), EACH), (4, 1))
SWITCHED = np.arange(0, PLACES * EACH, 3)
PLACED[2:, SWITCHED] = (PLACED[2:, SWITCHED] + 1) % PLACES


def stripes(places: Array, *, seed: int = 0, noise: float = 0.05) -> Array:
    """Maps (channels, SIDE, SIDE), each active in the stripe of its place."""
    rng = np.random.default_rng(seed)
    maps = noise * rng.random((len(places), SIDE, SIDE))
    width = SIDE // PLACES
    for row, place in enumerate(places):
        maps[row, :, place * width : (place + 1) * width] += 0.5 + rng.random()
    return maps


def maps_of(values: list[Array], *, blocks: list[Array] | None = None, start: int = 1) -> cp.InfluenceMaps:
    """Maps (channels, H, W) of each call, and sums over blocks (channels, blocks, H, W), as one result."""
    maps = torch.from_numpy(np.concatenate(values)).float()
    n, channels = len(maps), len(values[0])
    units = tuple(
        cp.UnitSet({f"block#{call + start}": (channel,)}) for call in range(len(values)) for channel in range(channels)
    )
    sums = None if blocks is None else torch.from_numpy(np.concatenate(blocks)).float()
    return cp.InfluenceMaps(
        maps, 0.1 * maps, maps.mean((1, 2)), torch.full((n,), 0.01), torch.full((n,), 8), torch.zeros(n),
        units, ABOUT | {"layers": [f"block#{call + start}" for call in range(len(values))]}, block_sums=sums,
    )  # fmt: skip


def planted(seed: int = 0) -> cp.InfluenceMaps:
    return maps_of([stripes(places, seed=seed + call) for call, places in enumerate(PLACED)])


def test_channels_that_keep_their_place_keep_their_module_and_those_that_switch_do_not() -> None:
    found = cp.modules_by_call(planted(), n_modules=PLACES)
    np.testing.assert_array_equal(found.calls, [1, 2, 3, 4])
    # At all calls, a module is one place.
    for k in range(PLACES):
        assert len(set(PLACED[found.labels == k])) == 1
    np.testing.assert_allclose(found.kept, [1, 1 - len(SWITCHED) / PLACED.shape[1], 1])
    np.testing.assert_allclose(found.kept_throughout, found.kept[1])
    assert (found.cosines > 0.9).all()
    assert (found.p_value < 0.05).all()
    assert found.units[0].name == "module 1"
    assert dict(found.units[0]) == {
        f"block#{call}": tuple(np.flatnonzero(found.labels[call - 1] == 0)) for call in (1, 2, 3, 4)
    }


def test_places_without_memory_keep_no_more_than_chance() -> None:
    """Negative control: channels are put into places anew at each call."""
    rng = np.random.default_rng(3)
    placed = [rng.permutation(np.repeat(np.arange(PLACES), 20)) for _ in range(5)]
    found = cp.modules_by_call(maps_of([stripes(row, seed=call) for call, row in enumerate(placed)]), PLACES)
    low, high = np.percentile(found.chance, [0.5, 99.5], axis=1)
    assert ((found.kept >= low) & (found.kept <= high)).all()
    assert "no more channels keep their module than by chance" in str(found)
    assert "no more channels" not in str(cp.modules_by_call(planted(), PLACES))


def literal(maps: cp.InfluenceMaps, calls: int, k: int) -> tuple[list[list[int]], list[float]]:
    """Labels of each call, numbered as at the call before by trying every order of the modules; and shares kept."""
    values = maps.maps.double().numpy().reshape(calls, -1, *maps.maps.shape[1:])
    features = MapFeatures()
    labels, before = [], None
    for of_call in values:
        own, templates, _ = factorise(features.rows(of_call), k, "nmf", 0)
        if before is not None:
            unit = [template / np.sqrt((template**2).sum()) for template in templates]
            sums = {order: sum(float(before[j] @ unit[order[j]]) for j in range(k)) for order in permutations(range(k))}
            best = max(sums, key=lambda order: sums[order])
            own = np.array([best.index(label) for label in own])
            templates = np.stack([templates[best[j]] for j in range(k)])
        before = [template / np.sqrt((template**2).sum()) for template in templates]
        labels.append(own.tolist())
    kept = [sum(a == b for a, b in zip(one, two, strict=True)) / len(one) for one, two in pairwise(labels)]
    return labels, kept


@pytest.mark.parametrize("k", [2, 3, 4])
def test_a_literal_twin_gives_the_same_labels_and_shares(k: int) -> None:
    rng = np.random.default_rng(k)
    maps = maps_of([stripes(row, seed=call, noise=1.5) + rng.random((18, 1, 1)) for call, row in enumerate(PLACED)])
    found = cp.modules_by_call(maps, k)
    labels, kept = literal(maps, 4, k)
    np.testing.assert_array_equal(found.labels, labels)
    np.testing.assert_allclose(found.kept, kept)
    assert len(set(kept)) > 1, "the twin distinguishes calls"
    throughout = [len(set(course)) == 1 for course in zip(*labels, strict=True)]
    assert found.kept_throughout == np.mean(throughout)


def test_chance_is_the_product_of_the_modules_sizes() -> None:
    found = cp.modules_by_call(planted(), PLACES, permutations=4000)
    sizes = np.array([[(row == k).mean() for k in range(PLACES)] for row in found.labels])
    np.testing.assert_allclose(found.chance.mean(1), (sizes[:-1] * sizes[1:]).sum(1), atol=0.01)
    np.testing.assert_allclose(found.chance_throughout.mean(), sizes.prod(0).sum(), atol=0.01)
    again = cp.modules_by_call(planted(), PLACES, permutations=4000)
    np.testing.assert_array_equal(again.chance, found.chance)
    expected = [(1 + (row >= share).sum()) / 4001 for row, share in zip(found.chance, found.kept, strict=True)]
    np.testing.assert_allclose(found.p_value, expected)


def test_dead_channels_count_nowhere() -> None:
    values = [stripes(places, seed=call) for call, places in enumerate(PLACED)]
    values[1][[0, 1, 7]] = 0.0
    found = cp.modules_by_call(maps_of(values), PLACES)
    assert (found.labels == -1).sum() == 3
    alive = np.setdiff1d(np.arange(PLACED.shape[1]), [0, 1, 7])
    np.testing.assert_allclose(found.kept[:2], [1, np.mean([c not in SWITCHED for c in alive])])
    assert found.kept_throughout == found.kept[1]
    np.testing.assert_array_equal(np.isin([0, 1, 7], found.units[0]["block#2"]), False)


def noisy(seed: int, *, blocks: int = 16, noise: float = 6.0, placed: Any = PLACED) -> cp.InfluenceMaps:
    """The planted places with maps that are means over blocks of pairs, of which each is noisy."""
    rng = np.random.default_rng(seed)
    sums = []
    for call, places in enumerate(placed):
        mean = stripes(places, seed=call, noise=0.0)
        sums.append(mean[:, None] + noise * rng.exponential(size=(len(places), blocks, SIDE, SIDE)))
    return maps_of([values.mean(1) for values in sums], blocks=sums)


@pytest.fixture(scope="module")
def found() -> cp.ModulesByCall:
    return cp.modules_by_call(noisy(0), PLACES, permutations=50)


def test_reproducible_shares_are_the_mean_confidence_of_each_call(found: cp.ModulesByCall) -> None:
    maps = noisy(0)
    assert found.reproducible is not None
    channels = PLACED.shape[1]
    for call in range(4):
        rows = slice(call * channels, (call + 1) * channels)
        assert maps.block_sums is not None
        alone = maps_of([maps.maps[rows].numpy()], blocks=[maps.block_sums[rows].numpy()])
        with pytest.warns(UserWarning, match="expected to give other modules"):
            confidence = cp.ModuleFinder(PLACES).fit(alone).confidence_
        np.testing.assert_allclose(found.reproducible[call], confidence.mean(), atol=0.02)
    assert found.reproducible.min() > 0.3
    assert found.reproducible.max() < 1


def test_standard_errors_cover_those_of_other_samples_of_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """They err on the large side, since a resample is noisier than all pairs, and grow with the noise."""
    monkeypatch.setattr(comparison, "RESAMPLES", 20)
    several = [cp.modules_by_call(noisy(seed, placed=PLACED[1:3]), PLACES, permutations=1) for seed in range(1, 15)]
    spread = np.std([found.kept for found in several], axis=0, ddof=1)
    errors: list[Any] = [found.standard_error for found in several]
    told = np.sqrt(np.mean(np.square(errors), axis=0))
    assert (spread > 0.01).all()
    assert (told > 0.8 * spread).all()
    assert (told < 4 * spread).all()
    quiet = cp.modules_by_call(noisy(1, noise=1.0, placed=PLACED[1:3]), PLACES, permutations=1).standard_error
    assert quiet is not None
    assert quiet < told / 4


def test_it_is_a_result(tmp_path: Path, found: cp.ModulesByCall) -> None:
    again = cp.ModulesByCall.load(found.save(tmp_path / "calls.safetensors"))
    assert again.units == found.units
    assert again.provenance == found.provenance
    for name in ("calls", "labels", "templates", "cosines", "kept", "chance", "standard_error", "reproducible"):
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name))
    assert again.kept_throughout == found.kept_throughout
    assert found.provenance["method"] == "nmf"
    assert found.provenance["maps"]["layers"] == [f"block#{call}" for call in (1, 2, 3, 4)]
    assert [record["next"] for record in found.records()] == [2, 3, 4]


def test_its_figures_show_its_numbers(found: cp.ModulesByCall) -> None:
    _, ax = found.plot()
    lines = {str(line.get_label()): np.asarray(line.get_ydata()) for line in ax.lines}
    bars = {str(bar.get_label()): bar for bar in ax.containers}
    np.testing.assert_allclose(bars["from call to call"].lines[0].get_ydata(), found.kept)
    np.testing.assert_allclose(bars["chance"].lines[0].get_ydata(), found.chance.mean(1))
    assert found.reproducible is not None
    np.testing.assert_allclose(lines["other latents,\nthe same call"], found.reproducible)
    _, ax = found.plot_channels()
    (image,) = ax.images
    shown = np.asarray(image.get_array())
    assert shown.shape == (4, PLACED.shape[1], 3)
    assert len(np.unique(shown.reshape(-1, 3), axis=0)) == PLACES
    _, ax = dataclasses.replace(found, units=tuple(item.named("") for item in found.units)).plot_templates()
    assert [label.get_text() for label in ax.get_xticklabels()] == [f"call {call}" for call in (1, 2, 3, 4)]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["module 1", "module 2", "module 3"]


def test_a_sampler_is_probed_from_end_to_end() -> None:
    with seeded(0):
        gen, layer = flow(UNet((8, 16), 1).state_dict(), image_size=8, steps=3), "velocity.middle"
    maps = cp.InfluenceMap(gen, gen.calls(layer)).attribute(n_pairs=8, blocks=4)
    found = cp.modules_by_call(maps, 2)
    assert len(found.kept) == len(gen.calls(layer)) - 1
    z = gen.sample(2)
    assert cp.Hybridizer(gen, gen.calls(layer)).hybridize(z, z, units=found.units).units == found.units


def test_what_is_not_of_several_calls_is_refused() -> None:
    with pytest.raises(cp.ProbeError, match=r"are of call 3 alone; give those of several"):
        cp.modules_by_call(maps_of([stripes(PLACED[0])], start=3))
    with pytest.raises(cp.ProbeError, match=r"the maps of calls.*give those of cp\.InfluenceMap"):
        cp.modules_by_call(np.zeros((4, 8, 8)))  # type: ignore[arg-type]
    with pytest.raises(cp.ProbeError, match="modules asked of"):
        cp.modules_by_call(planted(), 40)
    with pytest.raises(cp.ProbeError, match="permutations"):
        cp.modules_by_call(planted(), 3, permutations=0)
