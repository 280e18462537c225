"""Modules against scikit-learn called literally, and on maps whose modules are known."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import NMF
from sklearn.exceptions import NotFittedError
from sklearn.metrics import adjusted_rand_score

import counterfactual_probe as cp
from counterfactual_probe.base.files import save_tensors
from counterfactual_probe.modules import clustering, features
from counterfactual_probe.modules.features import default_window
from support.planted import Array, planted, structureless
from support.toys import PLAIN
from support.twins import literal_bits, literal_nmf


def zero_padded_bits(maps: Array) -> Array:
    pooled = torch.nn.functional.avg_pool2d(torch.from_numpy(maps)[:, None], 3, 1, 1).flatten(1).numpy()
    return (pooled > np.percentile(pooled, 75, axis=1, keepdims=True)).astype(float)


# --- the definition -------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:NMF stopped", "ignore:Maximum number of iterations")
@pytest.mark.parametrize("k", [1, 2, 3, 5])
@pytest.mark.parametrize("window", [1, 3, 5])
def test_nmf_labels_equal_a_direct_computation(k: int, window: int) -> None:
    maps = structureless(20, 12) + planted(4, 5, 12)[0]
    finder = cp.ModuleFinder(n_modules=k, window=window).fit(maps)
    labels, weights, templates = literal_nmf(literal_bits(maps, window), k)
    assert finder.labels_.tolist() == labels.tolist()
    np.testing.assert_allclose(finder.weights_, weights, atol=1e-10)
    np.testing.assert_allclose(finder.templates_.reshape(k, -1), templates, atol=1e-10)
    np.testing.assert_allclose(np.linalg.norm(finder.templates_.reshape(k, -1), axis=1), 1)


def test_kmeans_labels_equal_a_direct_computation() -> None:
    maps = structureless(20, 12) + planted(4, 5, 12)[0]
    finder = cp.ModuleFinder(n_modules=4, method="kmeans", seed=3).fit(maps)
    bits = literal_bits(maps, 3)
    model = KMeans(n_clusters=4, n_init=10, random_state=3).fit(bits)
    assert finder.labels_.tolist() == model.labels_.tolist()
    np.testing.assert_allclose(finder.templates_.reshape(4, -1), model.cluster_centers_, atol=1e-12)
    for row, label in enumerate(finder.labels_):
        distances = [np.linalg.norm(bits[row] - centre) for centre in model.cluster_centers_]
        np.testing.assert_allclose(finder.weights_[row], -np.array(distances), atol=1e-6)
        assert label == int(np.argmin(distances))


def test_labels_of_real_maps_equal_a_direct_computation(faces: cp.GeneratorAdapter) -> None:
    maps = cp.InfluenceMap(faces, "main.11").attribute(n_pairs=4, seed=0)
    values = maps.maps.double().numpy()
    labels, _, templates = literal_nmf(literal_bits(values, 3), 3)
    finder = cp.ModuleFinder(n_modules=3).fit(maps)
    assert finder.labels_.tolist() == labels.tolist()
    np.testing.assert_allclose(finder.templates_.reshape(3, -1), templates, atol=1e-8)
    # Zero padding is not a detail: it takes the border's bits away.
    assert np.mean(zero_padded_bits(values) != literal_bits(values, 3)) > 0.005


@pytest.mark.parametrize(
    ("size", "window"),
    [
        (8, 3),
        (32, 3),
        (64, 3),
        (100, 3),
        (106, 3),
        (107, 5),
        (128, 5),
        (149, 5),
        (150, 7),
        (256, 11),
        (512, 23),
    ],
)
def test_window_is_the_largest_odd_number_up_to_three_sixty_fourths(size: int, window: int) -> None:
    assert default_window(size, size) == default_window(size, 3 * size) == default_window(2 * size, size) == window
    by_hand = [odd for odd in range(1, 99, 2) if odd <= 3 * size / 64]
    assert window == max(3, max(by_hand, default=3))


def test_the_default_window_is_used() -> None:
    maps = np.random.default_rng(0).random((6, 128, 128))
    default = cp.ModuleFinder(n_modules=2).fit(maps)
    five, three = (cp.ModuleFinder(n_modules=2, window=window).fit(maps) for window in (5, 3))
    assert np.array_equal(default.weights_, five.weights_)
    assert not np.array_equal(default.weights_, three.weights_)


def test_percentile_is_used() -> None:
    maps = structureless(10, 12)
    bits = literal_bits(maps, 3, 40.0)
    finder = cp.ModuleFinder(n_modules=2, percentile=40.0).fit(maps)
    np.testing.assert_allclose(finder.weights_, literal_nmf(bits, 2)[1], atol=1e-10)


def test_the_scale_of_templates_does_not_decide_labels() -> None:
    """Conventions 10: some row has another label if H keeps the scale that the solver left it."""
    maps = structureless(60, 16, seed=1)
    bits = literal_bits(maps, 3)
    model = NMF(5, init="nndsvda", tol=1e-4, max_iter=1000, random_state=0)
    unscaled = model.fit_transform(bits).argmax(1)
    labels = cp.ModuleFinder(n_modules=5).fit(maps).labels_
    assert 0 < np.mean(labels != unscaled) < 0.5


# --- known modules --------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["nmf", "kmeans"])
@pytest.mark.parametrize("k", [2, 3, 4])
def test_planted_modules_are_found(method: Any, k: int) -> None:
    maps, truth = planted(k, side=16)
    finder = cp.ModuleFinder(n_modules=k, method=method).fit(maps)
    assert adjusted_rand_score(truth, finder.labels_) == 1.0
    assert (
        adjusted_rand_score(truth, cp.ModuleFinder(n_modules=k, method=method).fit(structureless(6 * k)).labels_) < 0.5
    )


def test_dead_channels_belong_to_no_module() -> None:
    maps, truth = planted(3)
    maps[[2, 7]] = [[[0.0]], [[0.3]]]  # zero, and flat: neither says where a channel acts
    finder = cp.ModuleFinder(n_modules=3).fit(maps)
    alive = np.ones(len(maps), bool)
    alive[[2, 7]] = False
    assert (finder.labels_[~alive] == -1).all()
    assert (finder.weights_[~alive] == 0).all()
    assert adjusted_rand_score(truth[alive], finder.labels_[alive]) == 1.0
    channels = sorted(channel for rows in finder.modules_ for channel in rows)
    assert channels == np.flatnonzero(alive).tolist()
    again = cp.ModuleFinder(n_modules=3).fit(maps[alive])  # and they do not disturb the others
    assert again.labels_.tolist() == finder.labels_[alive].tolist()


@pytest.mark.parametrize("value", [0.1, 0.3, 1 / 3, -0.7, 1e-300])
@pytest.mark.parametrize("window", [1, 3, 23])
def test_a_flat_map_has_no_ones_however_its_means_round(value: float, window: int) -> None:
    flat = np.full((1, 16, 16), value)
    assert not features.binary_features(flat, window).any()
    flat[0, 3, 3] = np.nextafter(value, 1)  # a rounding error is not a place
    assert not features.binary_features(flat, window).any()
    flat[0, 3, 3] += 1e-9 * abs(value)  # and a small effect is one
    assert features.binary_features(flat, window).any()


def test_modules_of_an_array_are_rows_that_a_hybridizer_takes() -> None:
    generator = PLAIN.generator()
    maps = cp.InfluenceMap(generator, "main.2").attribute(n_pairs=3)
    rows, named = cp.ModuleFinder(n_modules=2).fit(maps.maps), cp.ModuleFinder(n_modules=2).fit(maps)
    assert rows.modules_ == tuple(units["main.2"] for units in named.unit_sets())
    z1, z2 = generator.sample(2), generator.sample(2, seed=1)
    hybridizer = cp.Hybridizer(generator, "main.2")
    one, two = (hybridizer.hybridize(z1, z2, units=finder.modules_) for finder in (rows, named))
    assert one.units == two.units
    assert torch.equal(one.images, two.images)
    _, ax = rows.plot()
    assert next(label.get_text() for label in ax.get_xticklabels()) == f"module 1\n{len(rows.modules_[0])} channels"
    with pytest.raises(cp.ProbeError, match="rows of an array, which names no layer; fit an InfluenceMaps instead"):
        cp.match_modules(rows, named)


@pytest.mark.parametrize("kind", ["maps", "array"])
def test_a_finder_comes_back_from_a_file(kind: str, tmp_path: Path) -> None:
    maps = cp.InfluenceMap(PLAIN.generator(), "main.2").attribute(n_pairs=3)
    finder = cp.ModuleFinder(2, "kmeans", window=5, percentile=60, seed=3).fit(maps if kind == "maps" else maps.maps)
    path = finder.save(tmp_path / "modules.safetensors")
    again = cp.ModuleFinder.load(path)
    assert again.modules_ == finder.modules_
    assert again.provenance_ == finder.provenance_
    for name in ("labels_", "templates_", "weights_"):
        np.testing.assert_array_equal(getattr(again, name), getattr(finder, name))
        assert getattr(again, name).dtype == getattr(finder, name).dtype
    for name in ("n_modules", "method", "features", "window", "percentile", "seed"):
        assert getattr(again, name) == getattr(finder, name)
    assert again.fit(maps).labels_.tolist() == finder.labels_.tolist()


def test_a_file_of_something_else_is_no_finder(tmp_path: Path) -> None:
    maps = cp.InfluenceMap(PLAIN.generator(), "main.2").attribute(n_pairs=2)
    with pytest.raises(cp.ProbeError, match="holds InfluenceMaps and not ModuleFinder"):
        cp.ModuleFinder.load(maps.save(tmp_path / "maps.safetensors"))
    with pytest.raises(cp.ProbeError, match="lacks a part of ModuleFinder"):
        cp.ModuleFinder.load(save_tensors(tmp_path / "half.safetensors", "ModuleFinder", {}, {"parameters": {}}))
    with pytest.raises(cp.ProbeError, match=r"has no modules yet; fit it first"):
        cp.ModuleFinder().save(tmp_path / "none.safetensors")


def test_modules_are_unit_sets_over_the_layers_of_the_maps() -> None:
    generator = PLAIN.generator()
    layers = ["main.2", "main.6"]
    maps = cp.InfluenceMap(generator, layers).attribute(n_pairs=3)
    finder = cp.ModuleFinder(n_modules=2).fit(maps)
    for k, units in enumerate(finder.unit_sets()):
        for row, single in enumerate(maps.units):
            ((layer, (channel,)),) = single.items()
            assert (channel in units[layer]) == (finder.labels_[row] == k)
    z1, z2 = generator.sample(2), generator.sample(2, seed=1)
    hybrids = cp.Hybridizer(generator, layers).hybridize(z1, z2, units=finder.modules_)
    assert hybrids.images.shape == (2, 2, 3, 16, 16)
    assert hybrids.units == finder.modules_


def test_modules_of_overlapping_unit_sets_are_unit_sets() -> None:
    generator = PLAIN.generator()
    maps = cp.InfluenceMap(generator, "main.2").attribute(n_pairs=3, units=[[0, 1], [1, 2], [2, 0]])
    finder = cp.ModuleFinder(n_modules=1).fit(maps)
    z = generator.sample(1)
    hybrids = cp.Hybridizer(generator, "main.2").hybridize(z, z, units=finder.modules_)
    assert sorted(hybrids.units[0]["main.2"]) == [0, 1, 2]


def test_same_seed_same_modules_and_input_kinds() -> None:
    maps, _ = planted(3)
    finder = cp.ModuleFinder(n_modules=3, seed=4)
    assert finder.fit(maps) is finder
    one = finder.labels_.tolist()
    assert finder.fit(torch.from_numpy(maps)).labels_.tolist() == one
    assert finder.fit(maps.tolist()).labels_.tolist() == one
    assert finder.fit(maps.astype(np.float32)).labels_.tolist() == one
    first, *found = repr(finder).splitlines()
    assert first == "ModuleFinder(n_modules=3, method='nmf', features='bits')" == repr(cp.ModuleFinder(3))
    assert [line.split() for line in found[-3:]] == [
        ["module", str(k + 1), str((finder.labels_ == k).sum())] for k in range(3)
    ]
    assert f"variance explained  {finder.variance_explained_:.2f}" in repr(finder)


def test_an_unfitted_finder_says_so() -> None:
    fitted = cp.ModuleFinder().fit(planted(3)[0])
    for use in (
        lambda: cp.match_modules(cp.ModuleFinder(), fitted),
        lambda: cp.match_modules(fitted, cp.ModuleFinder()),
        lambda: cp.ModuleFinder().plot(),
    ):
        with pytest.raises(cp.ProbeError, match=r"has no modules yet; fit it first, with \.fit\(maps\)"):
            use()
    for name in (
        "labels_",
        "templates_",
        "weights_",
        "modules_",
        "names_",
        "provenance_",
        "variance_explained_",
        "confidence_",
        "expected_ari_",
    ):
        assert not hasattr(cp.ModuleFinder(), name)
        for family in (cp.ProbeError, NotFittedError, AttributeError):  # of the library, of scikit-learn, of Python
            with pytest.raises(family, match=r"^ModuleFinder\(.*\) has no modules yet; fit it first"):
                getattr(cp.ModuleFinder(), name)
    with pytest.raises(AttributeError, match="'ModuleFinder' object has no attribute 'lables_'"):
        _ = cp.ModuleFinder().lables_  # type: ignore[attr-defined]


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_modules": 0}, "n_modules is 0; give an integer of at least 1"),
        ({"n_modules": 2.5}, r"n_modules is 2\.5"),
        ({"method": "ica"}, "method is 'ica'; give 'nmf' or 'kmeans'"),
        ({"features": "pixels"}, "features is 'pixels'; give one of 'bits', 'l2'"),
        ({"window": 4}, "window is 4; give an odd number of at least 1"),
        ({"window": -1}, "window is -1"),
        ({"window": 3.0}, "window is 3.0; give an integer of at least 1"),
        ({"percentile": "x"}, "percentile is 'x'; give a number of at least 0 and less than 100"),
        ({"percentile": 100}, "percentile is 100; give a number of at least 0 and less than 100"),
        ({"percentile": float("nan")}, "percentile is nan"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(cp.ProbeError, match=message):
        cp.ModuleFinder(**arguments)


WITH_NAN = np.zeros((4, 8, 8))
WITH_NAN[2, 3, 3] = np.nan


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (
            np.zeros((4, 8, 8)),
            r"every influence map is flat \(all channels dead\); choose another layer or more pairs",
        ),
        (planted(2, 1)[0], r"3 modules asked of 2 live channels \(2 in all\); ask for fewer modules"),
        (
            np.concatenate([planted(2, 1)[0], np.zeros((5, 16, 16))]),
            r"3 modules asked of 2 live channels \(7 in all\); ask for fewer modules",
        ),
        (np.zeros((8, 8)), r"influence maps have shape \(8, 8\); give \(channels, H, W\)"),
        (np.zeros((0, 8, 8)), r"influence maps have shape \(0, 8, 8\)"),
        (WITH_NAN, "influence map 2 holds NaN or infinite values; make the maps again from finite images"),
    ],
)
@pytest.mark.parametrize("method", ["nmf", "kmeans"])
def test_bad_maps(maps: Array, message: str, method: Any) -> None:
    with pytest.raises(cp.ProbeError, match=message):
        cp.ModuleFinder(n_modules=3, method=method).fit(maps)


def test_more_modules_than_pixels() -> None:
    with pytest.raises(cp.ProbeError, match="6 modules asked of maps of 4 pixels; ask for at most 4"):
        cp.ModuleFinder(n_modules=6, window=1).fit(structureless(12, 2))


# --- NMF that stops early -------------------------------------------------------------------------


def test_nmf_that_stops_early_is_told_once_and_in_our_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clustering, "_MOST_ITERATIONS", 2)
    maps = structureless(24)
    cure = "short of its tolerance; take channels with two close weights as undecided"
    with pytest.warns(UserWarning, match=f"NMF stopped 1 time at 2 iterations, {cure}") as caught:
        cp.ModuleFinder(n_modules=3).fit(maps)
    assert [found.filename for found in caught] == [__file__]  # of the caller's line, and alone
    with pytest.warns(UserWarning, match=f"NMF stopped 8 times at 2 iterations, {cure}") as caught:
        cp.ModuleFinder().stability(maps, n_modules=[2, 3], repetitions=2)
    assert [found.filename for found in caught] == [__file__]


def test_other_warnings_pass_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def warns(*_: object) -> None:
        warnings.warn("something else", RuntimeWarning, stacklevel=2)

    monkeypatch.setattr(clustering, "require_distinct_rows", warns)
    with pytest.warns(RuntimeWarning, match="something else") as caught:
        cp.ModuleFinder(n_modules=3).fit(planted(3)[0])
    assert len(caught) == 1
