"""Modules against known parts: perfect, permuted and random ones, literal twins, and what is refused."""

from __future__ import annotations

import json
import re
import runpy
import sys
from itertools import combinations, permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from counterfactual_probe.adapters.autoencoder import autoencoder
from sklearn.metrics import adjusted_rand_score

import counterfactual_probe as cp
from counterfactual_probe.data import Scene
from counterfactual_probe.data.scene import PARTS
from counterfactual_probe.parts.partitions import adjusted_rand, contingency_tables, match_parts, overlaps, strongest
from counterfactual_probe.registry.folders import save_folder
from counterfactual_probe.testing import Model1
from support.figures import SavedFigures, cells, column_names
from support.paths import BENCHMARKS
from support.planted import Array, planted
from support.toys import seeded


def stripes(k: int = 3, side: int = 12) -> Array:
    found = np.zeros((k, side, side))
    for part in range(k):
        found[part, :, part * side // k : (part + 1) * side // k] = 1
    return found


def literal_iou(regions: Array, masks: Array) -> Array:
    """(K, P), with sets of pixels; regions (n, pixels) of module numbers, masks (n, P, pixels)."""
    n, p = masks.shape[:2]
    k = int(regions.max()) + 1
    found = np.zeros((k, p))
    for module in range(k):
        for part in range(p):
            values = []
            for image in range(n):
                own = {int(x) for x in np.flatnonzero(regions[image] == module)}
                true = {int(x) for x in np.flatnonzero(masks[image, part])}
                if true:
                    values.append(len(own & true) / len(own | true))
            found[module, part] = sum(values) / len(values)
    return found


def literal_ari(one: Array, two: Array) -> float:
    """Over all pairs of pixels: (agreement − expected) / (largest − expected)."""
    pairs = list(combinations(range(len(one)), 2))
    together = sum(bool(one[i] == one[j] and two[i] == two[j]) for i, j in pairs)
    first = sum(bool(one[i] == one[j]) for i, j in pairs)
    second = sum(bool(two[i] == two[j]) for i, j in pairs)
    expected = first * second / len(pairs)
    return float((together - expected) / ((first + second) / 2 - expected))


# --- the measures -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_both_measures_equal_their_definitions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    k, p, n, side = 2 + seed % 3, 3, 4, 5
    templates = rng.random((k, side, side))
    labels = rng.integers(-1, p, (n, side * side))
    masks = np.stack([labels == part for part in range(p)], 1)
    found = cp.parts_agreement(templates, masks.reshape(n, p, side, side))
    regions = np.array([max(range(k), key=lambda m: templates[m].ravel()[x]) for x in range(side * side)])
    iou = literal_iou(np.repeat(regions[None], n, 0), masks)
    np.testing.assert_allclose(found.iou, iou, rtol=0, atol=1e-12)
    ari = [literal_ari(regions, labels[image]) for image in range(n)]
    np.testing.assert_allclose(found.ari, ari, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.mean_ari, np.mean(ari), rtol=0, atol=1e-12)
    few, many = sorted((k, p))
    best = max(
        sum(iou[(a, b) if k <= p else (b, a)] for a, b in enumerate(order)) for order in permutations(range(many), few)
    )
    np.testing.assert_allclose(found.mean_iou, best / p, rtol=0, atol=1e-12)
    assert len(found.pairs) == few
    assert not np.allclose(found.iou[0], found.iou[1])


def test_the_index_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    one, two = rng.integers(-1, 3, (20, 40)), rng.integers(-1, 4, (20, 40))
    one[0], two[1] = 2, -1  # a single set against several
    one[2] = two[2] = 1  # and against itself
    found = adjusted_rand(contingency_tables(one, two, 3, 4))
    expected = [adjusted_rand_score(a, b) for a, b in zip(one, two, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    assert found[:3].tolist() == [0, 0, 1]
    assert adjusted_rand(contingency_tables(one[:1], two, 3, 4)).shape == (20,)


def test_matching_is_for_the_largest_sum() -> None:
    pairs, mean = match_parts(np.array([[0.6, 0.5], [0.5, 0.1]]))  # the greedy 0.6 + 0.1 is less
    assert pairs.tolist() == [[0, 1], [1, 0]]
    assert mean == 0.5


# --- known answers ------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1]])
def test_perfect_modules_score_one_however_they_are_numbered(order: list[int]) -> None:
    maps, _ = planted(3, side=12)
    finder = cp.ModuleFinder(3, window=1, percentile=60).fit(maps)
    found = cp.parts_agreement(finder, stripes()[order].astype(bool), maps=maps, names=["a", "b", "c"])
    assert found.mean_iou > 0.85
    exact = cp.parts_agreement(stripes()[order], stripes().astype(bool))
    assert exact.mean_iou == exact.mean_ari == exact.majority_iou == exact.majority_ari == 1
    assert exact.pairs.tolist() == [[k, part] for k, part in enumerate(order)]
    wrong = cp.parts_agreement(np.roll(stripes()[order], 2, axis=2), stripes().astype(bool))
    assert wrong.mean_iou < 0.6
    assert wrong.mean_ari < 0.5


def test_the_controls_are_random_groups_of_as_many_channels() -> None:
    model = Model1.drawn(3, units=8, seed=1)
    maps = cp.InfluenceMap(model.generator(), "hidden").attribute(n_pairs=4)
    finder = cp.ModuleFinder(3, window=1, percentile=0).fit(maps)
    alone = model.supports & (model.supports.sum(0) == 1)  # a pixel of two modules is of no part
    found = cp.parts_agreement(finder, alone, maps=maps, controls=30, seed=3)
    assert found.chance_iou.mean() < found.mean_iou - 0.1
    assert found.above_chance > 0.5
    # The first three, literally: the mean bits of a group, of unit norm, and at each pixel the largest.
    rng, bits = np.random.default_rng(3), (maps.maps > 0).flatten(1).double().numpy()
    for iou, ari in zip(found.chance_iou[:3], found.chance_ari[:3], strict=True):
        labels = rng.permutation(finder.labels_)
        means = np.stack([bits[labels == k].mean(0) for k in range(3)])
        group = cp.parts_agreement((means / np.linalg.norm(means, axis=1, keepdims=True)).reshape(3, 16, 16), alone)
        np.testing.assert_allclose([group.mean_iou, group.mean_ari], [iou, ari], rtol=0, atol=1e-12)
    again, other = (cp.parts_agreement(finder, alone, maps=maps, controls=30, seed=seed) for seed in (3, 4))
    assert np.array_equal(again.chance_iou, found.chance_iou)
    assert not np.array_equal(other.chance_iou, found.chance_iou)


def test_groups_at_random_are_not_above_chance() -> None:
    maps, _ = planted(3, side=12, noise=1.0)
    finder = cp.ModuleFinder(3).fit(maps)
    truth = stripes().astype(bool)
    chance = [cp.parts_agreement(finder, truth, maps=maps, controls=1, seed=seed).chance_iou[0] for seed in range(40)]
    found = cp.parts_agreement(finder, truth, maps=maps, controls=40, seed=99)
    assert abs(np.mean(chance) - found.chance_iou.mean()) < 0.1
    assert found.above_chance > 0.9
    assert np.isnan(cp.parts_agreement(finder, truth).above_chance)


def test_the_control_is_the_mean_of_a_groups_features() -> None:
    """With each channel a module of its own, any grouping is the modules again."""
    maps = stripes(3, 12) + 0.1
    finder = cp.ModuleFinder(3, window=1, percentile=60).fit(maps)
    found = cp.parts_agreement(finder, stripes().astype(bool), maps=maps, controls=4)
    assert found.mean_iou == 1
    assert found.chance_iou.tolist() == [1] * 4
    assert found.chance_ari.tolist() == [1] * 4


def test_parts_that_move_have_a_limit() -> None:
    """Templates stand still: what the best of them reach is beside them."""
    masks = np.stack([np.roll(stripes(), shift, axis=2) for shift in (0, 1, 2)]).astype(bool)
    found = cp.parts_agreement(np.roll(stripes(), 1, axis=2), masks)
    assert found.mean_iou == found.majority_iou < 1
    assert found.mean_ari == found.majority_ari < 1
    assert found.ari.shape == (3,)
    assert found.ari[1] == 1
    np.testing.assert_allclose(found.parts, masks.mean(0))
    averaged = cp.parts_agreement(np.roll(stripes(), 1, axis=2), masks.mean(0))
    assert averaged.mean_iou == 1  # the average does not move


@pytest.mark.parametrize("k", [1, 2, 4])
def test_another_number_of_modules_than_parts(k: int) -> None:
    found = cp.parts_agreement(stripes(k, 12), stripes(3, 12).astype(bool))
    assert found.iou.shape == (k, 3)
    assert len(found.pairs) == min(k, 3)
    assert 0 < found.mean_iou < 1
    if k == 1:
        np.testing.assert_allclose(found.mean_iou, 1 / 9)  # a third of the image, of one part of three
        assert found.mean_ari == 0


def test_templates_that_say_nothing() -> None:
    constant = cp.parts_agreement(np.ones((3, 12, 12)), stripes().astype(bool))  # ties go to the first
    np.testing.assert_allclose(constant.mean_iou, 1 / 9)
    assert constant.mean_ari == 0
    dead = cp.parts_agreement(np.zeros((3, 12, 12)), stripes().astype(bool))
    assert dead.mean_iou == dead.mean_ari == 0
    one = stripes()
    one[2] = 0  # without a template of its own its pixels are of no module
    part = cp.parts_agreement(one, stripes().astype(bool))
    np.testing.assert_allclose(part.mean_iou, 2 / 3)
    assert part.mean_ari == 1


def test_a_part_that_an_image_does_not_show_is_left_out_there() -> None:
    masks = np.stack([stripes(), stripes()]).astype(bool)
    masks[1, 0] = False
    found = cp.parts_agreement(stripes(), masks)
    assert found.iou[0, 0] == 1
    assert found.parts[0].max() == 0.5


# --- image by image -----------------------------------------------------------------------------


def test_modules_of_model_1_are_the_parts_of_every_image() -> None:
    model = Model1.drawn(3, seed=4)
    gen = model.generator()
    finder = cp.ModuleFinder(3, window=1, percentile=0).fit(cp.InfluenceMap(gen, "hidden").attribute(n_pairs=4))
    z = gen.sample(6, seed=2)
    alone = model.supports & (model.supports.sum(0) == 1)
    masks = alone.expand(6, -1, -1, -1)
    found = cp.parts_by_image(finder, masks, generator=gen, latents=z, sources=2, controls=3)
    share = (alone.sum((1, 2)) / model.supports.sum((1, 2))).min()
    assert found.mean_iou >= share  # only pixels of two modules are decided otherwise
    assert found.chance_iou.max() < found.mean_iou
    assert found.provenance["regions"] == "image by image"
    # The definition, for one image.
    assert isinstance(z, torch.Tensor)
    total = torch.zeros(3, 256, dtype=torch.float64)
    for other in (1, 2):
        for k, units in enumerate(finder.modules_):
            hybrid = cp.Hybridizer(gen, "hidden").hybridize(z[:1], z[other : other + 1], units=[units])
            total[k] += (hybrid.images[0, 0] - hybrid.base[0]).abs().mean(0).flatten()
    region = strongest((total / total.norm(dim=1, keepdim=True)).numpy())
    counts = contingency_tables(region[None], np.where(alone.any(0), alone.int().argmax(0), -1).reshape(1, -1), 3, 3)
    one = cp.parts_by_image(finder, masks, generator=gen, latents=z, sources=2, controls=0)
    np.testing.assert_allclose(one.ari[0], adjusted_rand(counts)[0])
    assert one.chance_iou.shape == (0,)
    assert overlaps(counts).shape == (3, 3)


def test_a_decoder_of_the_scene() -> None:
    """The whole way, on a decoder without training: no more is claimed than that it runs and prints."""
    with seeded(0):
        model = cp.autoencoders.StructuralAutoencoder(4, 2, image_size=16, width=8, convolutions=4)
    gen = autoencoder(model.state_dict())
    scene = Scene(size=16)
    labels = scene.sample(6, seed=1)
    z = gen.encode(scene.render(labels).float() / 255)
    maps = cp.InfluenceMap(gen, "decoder.block2").attribute(z[:3], z[3:])
    finder = cp.ModuleFinder(2).fit(maps)
    for found in (
        cp.parts_agreement(finder, scene.masks(labels), maps=maps, names=PARTS, controls=3),
        cp.parts_by_image(finder, scene.masks(labels), generator=gen, latents=z, sources=2, names=PARTS, controls=1),
    ):
        assert repr(found).splitlines()[0].endswith("2 modules, 3 parts, 6 images)")
        assert 0 < found.majority_iou < 1
        np.testing.assert_allclose(found.parts.sum(0), 1)
        assert found.provenance["parts"] == list(PARTS)


# --- the result ---------------------------------------------------------------------------------


def test_the_result_saves_loads_and_plots(tmp_path: Path) -> None:
    found = cp.parts_agreement(stripes()[[1, 2, 0]], stripes().astype(bool), names=("left", "middle", "right"))
    again = cp.PartsAgreement.load(found.save(tmp_path / "parts.safetensors"))
    for name, value in vars(found).items():
        np.testing.assert_array_equal(getattr(again, name), value)
    assert repr(again) == repr(found)
    assert repr(found).startswith("PartsAgreement(mean IoU 1.000 (majority 1.000), ARI 1.000")
    _, ax = found.plot()
    titles = [label.get_text() for label in ax.get_xticklabels()]
    assert titles == [
        "left\nmodule 3, IoU 1.00",
        "middle\nmodule 1, IoU 1.00",
        "right\nmodule 2, IoU 1.00",
    ]


def test_what_cannot_be_compared_is_refused() -> None:
    masks = stripes().astype(bool)
    maps, _ = planted(3, side=12)
    finder = cp.ModuleFinder(3).fit(maps)
    for match, arguments in (
        (r"the masks are 12×12 pixels and the modules' maps 6×6; make masks of that size", (stripes(3, 6), masks)),
        (r"the masks are bool \(12, 12\); give booleans \(P, H, W\)", (finder, masks[0])),
        (r"the masks range from 0 to 2; give booleans, or shares from 0 to 1", (finder, 2 * stripes())),
        (r"pixel \(0, 4\) of image 0 belongs to several parts", (finder, masks | masks[1])),
        (r"part 2 has no pixel in any of the 1 images; leave its mask out", (finder, masks & ~masks[1])),
        (r"the templates are float64 \(12, 12\); give a fitted finder", (stripes()[0], masks)),
        (r"the templates hold NaN or infinite values", (np.full((3, 12, 12), np.nan), masks)),
        (r"has no modules yet; fit it first", (cp.ModuleFinder(3), masks)),
    ):
        with pytest.raises(cp.ProbeError, match=match):
            cp.parts_agreement(*arguments)
    with pytest.raises(cp.ProbeError, match="2 names given for 3 parts; name each"):
        cp.parts_agreement(finder, masks, names=["a", "b"])
    with pytest.raises(cp.ProbeError, match="there are 5 maps and the finder was fitted on 18; give these"):
        cp.parts_agreement(finder, masks, maps=maps[:5])
    with pytest.raises(cp.ProbeError, match="maps are given with templates, which have no units"):
        cp.parts_agreement(stripes(), masks, maps=maps)


def test_what_cannot_be_compared_image_by_image_is_refused() -> None:
    model = Model1.drawn(2, seed=0)
    gen = model.generator()
    finder = cp.ModuleFinder(2, window=1, percentile=0).fit(cp.InfluenceMap(gen, "hidden").attribute(n_pairs=2))
    z, masks = gen.sample(3), stripes(2, 16).astype(bool)
    with pytest.raises(cp.ProbeError, match="3 sources are asked for and each image has 2 others; give more latents"):
        cp.parts_by_image(finder, np.stack([masks] * 3), generator=gen, latents=z, sources=3)
    with pytest.raises(cp.ProbeError, match="there are masks of 1 images and 3 latents; give both for every image"):
        cp.parts_by_image(finder, masks, generator=gen, latents=z, sources=1)
    with pytest.raises(cp.ProbeError, match="these modules are rows of an array, which names no layer"):
        cp.parts_by_image(cp.ModuleFinder(3).fit(planted(3)[0]), masks, generator=gen, latents=z, sources=1)


def test_the_benchmark_writes_its_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], figure_of: SavedFigures
) -> None:
    with seeded(5):  # not the seed of the random weights
        model = cp.autoencoders.StructuralAutoencoder(4, 2, image_size=16, width=8, convolutions=4)
    folder = save_folder(tmp_path / "mine", "autoencoder", model.state_dict(), config={"name": "mine"})
    monkeypatch.syspath_prepend(BENCHMARKS)
    less = ["--pairs", "3", "--controls", "2", "--modules", "3", "--by-image", "--images", "5"]
    given = ["--folders", f"mine={folder}", "--layers", "decoder.block2", "--features", "bits", *less]
    monkeypatch.setattr(sys, "argv", ["known_parts.py", *given, "--out", str(tmp_path / "out")])
    runpy.run_path(str(BENCHMARKS / "known_parts.py"), run_name="__main__")
    rows = json.loads((tmp_path / "out" / "known-parts.json").read_text())
    assert [(row["model"], row["weights"], row["layer"], row["k"]) for row in rows] == [
        ("mine", weights, "decoder.block2", 3) for weights in ("trained", "untrained")
    ]
    for row in rows:
        assert 0 <= row["iou"] <= 1
        assert 0 < row["by image"]["majority_iou"] < 1
    assert rows[0]["iou"] != rows[1]["iou"]
    table = (tmp_path / "out" / "known-parts.md").read_text()
    assert table.count("| mine |") == 2
    assert table in capsys.readouterr().out
    (ax,) = figure_of(tmp_path / "out" / "mine.png").axes
    assert len(column_names(ax)) == 3
    assert all(re.fullmatch(r".+\nmodule [123], IoU [01]\.\d\d", name) for name in column_names(ax))
    cells(ax, 2, 3)
