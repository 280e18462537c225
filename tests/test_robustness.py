"""Robustness of classifiers to hybrids: against a literal twin, with known answers, and with all that can be wrong."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import counterfactual_probe as cp
import twins
from counterfactual_probe.robustness.pool import entropy
from counterfactual_probe.robustness.ranking import ranked
from counterfactual_probe.robustness.tally import divergence
from toys import COUPLED, NOISY, PLAIN, Toy

N = 7
OWN = cp.Preprocessing((8, 8), mean=(0.5,) * 3, std=(0.5,) * 3)
# Ragged on purpose: a layer without a module of the other, and one over two layers under a name of its own.
UNITS: dict[str, dict[str, Any]] = {
    "main.2": {"one": [0, 3, 5], "two": [1, 2]},
    "both": {"two": {"main.2": [0, 1], "main.6": [0, 1, 2]}},
    "main.6": {"three": [0, 1], "one": {"main.6": [2]}},
}
FLAT = [
    (0, 0, {"main.2": [0, 3, 5]}),
    (0, 1, {"main.2": [1, 2]}),
    (1, 1, {"main.2": [0, 1], "main.6": [0, 1, 2]}),
    (2, 0, {"main.6": [2]}),
    (2, 2, {"main.6": [0, 1]}),
]


@cache
def spread() -> tuple[Tensor, float]:
    """Mean of the toy's images, which differ little, and by how much they differ."""
    inputs = unit(torch.cat([twins.images(PLAIN, z) for z in (Z1, Z2)])).flatten(1)
    return inputs.mean(0), float(inputs.std(0).mean())


def linear(classes: int, seed: int) -> nn.Module:
    """Logits that differ enough between images for every answer to occur."""
    rng = torch.Generator().manual_seed(seed)
    last = nn.Linear(192, classes).double()
    mean, deviation = spread()
    with torch.no_grad():
        last.weight.copy_(torch.randn(classes, 192, generator=rng, dtype=torch.float64) / deviation / 10)
        last.bias.copy_(-last.weight @ mean)
    return nn.Sequential(nn.Flatten(), last)


def classifiers() -> list[cp.Classifier]:
    return [
        cp.Classifier(linear(4, 1), OWN, class_names=["day", "night", "dawn", "dusk"], name="few"),
        cp.Classifier(linear(14, 2), OWN, class_names=[*"abcdefghijkl", "night, nightfall", "day"], name="many"),
    ]


CLASS_MAP = {"day": ["day", "dawn"], "night": "night", "many": {"day": "day", "night": ["night", "a", "b", "c", "d"]}}
Z1, Z2 = (PLAIN.sampler(N, torch.Generator().manual_seed(seed)) for seed in (0, 1))


@pytest.fixture(scope="module")
def result() -> cp.Robustness:
    return score(PLAIN.generator())


def score(generator: cp.GeneratorAdapter, **options: Any) -> cp.Robustness:
    given = {"units_by_layer": UNITS, "classes": ("day", "night"), "class_map": CLASS_MAP, "shown": 3} | options
    probe = cp.RobustnessProbe(generator, given.pop("classifiers", None) or classifiers())
    return probe.score(given.pop("z1", Z1), given.pop("z2", Z2), **given)


# --- the literal twin ------------------------------------------------------------------------------


def unit(images: Tensor) -> Tensor:
    """−1…1 to 0…1 at 8×8 pixels: the toy's own size is 16×16."""
    return OWN(((images + 1) / 2).clamp(0, 1))


def softmax(logits: Sequence[float]) -> list[float]:
    largest = max(logits)
    exponentials = [math.exp(value - largest) for value in logits]
    return [value / sum(exponentials) for value in exponentials]


def answers_of(module: nn.Module, images: Tensor) -> list[list[float]]:
    return [softmax(module(unit(image[None]))[0].tolist()) for image in images]


def ranks(probabilities: Sequence[float]) -> list[int]:
    return sorted(range(len(probabilities)), key=lambda k: -probabilities[k])


@pytest.fixture(scope="module")
def literal() -> dict[str, Any]:
    """Probabilities of every hybrid by every classifier, one image at a time, and the images."""
    hybrids = twins.hybrids(PLAIN, Z1, Z2, [units for _, _, units in FLAT])
    modules = [linear(4, 1), linear(14, 2)]
    return {
        "hybrids": hybrids,
        "base": twins.images(PLAIN, Z1),
        "source": twins.images(PLAIN, Z2),
        "probabilities": [[answers_of(module, row) for row in hybrids] for module in modules],
        "modules": modules,
    }


NUMBERS = [((0, 2), (1,)), ((13,), (12, 0, 1, 2, 3))]


def test_recognition_is_the_twins(result: cp.Robustness, literal: Mapping[str, Any]) -> None:
    for c in range(2):
        for row, (layer, module, _) in enumerate(FLAT):
            for side in range(2):
                found = [ranks(p) for p in literal["probabilities"][c][row]]
                top1 = sum(order[0] in NUMBERS[c][side] for order in found) / N
                top5 = sum(bool({*order[:5]} & {*NUMBERS[c][side]}) for order in found) / N
                assert result.recognition[c, layer, module, side] == pytest.approx(top1)
                assert result.recognition5[c, layer, module, side] == pytest.approx(top5)
                answers = [order[0] for order in found]
                assert result.answers[c, layer, module].tolist() == answers
    assert len({*result.recognition[~np.isnan(result.recognition)].tolist()}) > 3, "or nothing would be compared"
    assert len({*result.answers[1].ravel().tolist()}) > 5


def test_the_larger_rate_and_its_standard_error(result: cp.Robustness, literal: Mapping[str, Any]) -> None:
    for c in range(2):
        for row, (layer, module, _) in enumerate(FLAT):
            hits = [[ranks(p)[0] in NUMBERS[c][side] for p in literal["probabilities"][c][row]] for side in range(2)]
            larger = max(hits, key=sum)
            rate = sum(larger) / N
            deviation = sum((hit - rate) ** 2 for hit in larger) / (N - 1)
            assert result.best[c, layer, module] == pytest.approx(rate)
            assert result.best_standard_error[c, layer, module] == pytest.approx(math.sqrt(deviation / N))
    curve = [np.mean([result.best[0, layer, m] for lay, m, _ in FLAT if lay == layer]) for layer in range(3)]
    np.testing.assert_allclose(result.curve[0], curve)
    assert result.curve_standard_error.shape == (2, 3)


def test_distances_are_the_twins(result: cp.Robustness, literal: Mapping[str, Any]) -> None:
    for row, (layer, module, _) in enumerate(FLAT):
        for side, original in enumerate(("base", "source")):
            expected = (literal["hybrids"][row] - literal[original]).abs().mean((1, 2, 3))
            np.testing.assert_allclose(result.distances[layer, module, :, side], expected, rtol=1e-5)
            for c in range(2):
                assert result.distance[c, layer, module, side] == pytest.approx(float(expected.mean()), rel=1e-5)
    assert result.distance.shape == (2, 3, 3, 2)


def test_entropy_is_the_twins(result: cp.Robustness, literal: Mapping[str, Any]) -> None:
    """Conventions 24, word by word."""
    for c, classes in enumerate((4, 14)):
        pooled = [p for row in literal["probabilities"][c] for p in row]
        mean = [sum(p[k] for p in pooled) / len(pooled) for k in range(classes)]
        chosen = sorted(range(classes), key=lambda k: -mean[k])[: min(10, classes)]
        assert [int(k) for k in result.provenance["classifiers"][c]["pooled"]] == chosen
        for row, (layer, module, _) in enumerate(FLAT):
            for pair, p in enumerate(literal["probabilities"][c][row]):
                own = [p[k] / sum(p[k] for k in chosen) for k in chosen]
                expected = -sum(value * math.log(value) for value in own if value > 0)
                assert result.entropies[c, layer, module, pair] == pytest.approx(expected, abs=1e-5)
    assert np.nanmax(result.entropy[1]) <= math.log(10)
    assert np.nanmin(result.entropies[1]) < 0.9 * np.nanmax(result.entropies[1])


def test_consensus_and_disagreement_are_the_twins(result: cp.Robustness, literal: Mapping[str, Any]) -> None:
    largest = dict.fromkeys(range(N), -1.0)
    for row, (layer, module, _) in enumerate(FLAT):
        same = 0
        for pair in range(N):
            said, outcomes = [], []
            for c in range(2):
                p = literal["probabilities"][c][row][pair]
                first = ranks(p)[0]
                said.append(next((side for side in range(2) if first in NUMBERS[c][side]), -1))
                masses = [sum(p[k] for k in NUMBERS[c][side]) for side in range(2)]
                outcomes.append([*masses, 1 - sum(masses)])
            same += said[0] == said[1]
            assert result.verdicts[:, layer, module, pair].tolist() == said
            mean = [sum(column) / 2 for column in zip(*outcomes, strict=True)]

            def bits(shares: Sequence[float]) -> float:
                return -sum(share * math.log(share) for share in shares if share > 1e-15)

            expected = bits(mean) - sum(map(bits, outcomes)) / 2
            assert result.disagreement[layer, module, pair] == pytest.approx(expected, abs=1e-5)
            largest[pair] = max(largest[pair], expected)
        assert result.consensus[layer, module] == pytest.approx(same / N)
    assert 0 < result.agreement[0, 1] < 1
    assert result.agreement[0, 0] == 1
    # What is kept to be shown: the largest of each pair, of the pairs where that is largest.
    assert result.shown_at[:, 2].tolist() == sorted(range(N), key=lambda pair: -largest[pair])[:3]
    for k, (layer, module, pair) in enumerate(result.shown_at.tolist()):
        row = [(own_layer, own_module) for own_layer, own_module, _ in FLAT].index((layer, module))
        expected_images = torch.stack([literal["base"][pair], literal["hybrids"][row][pair], literal["source"][pair]])
        torch.testing.assert_close(result.shown[k], expected_images.float(), atol=1e-5, rtol=0)
        assert result.disagreement[layer, module, pair] == pytest.approx(largest[pair], abs=1e-5)


def test_originals_are_asked_too(result: cp.Robustness, literal: Mapping[str, Any]) -> None:
    for c, module in enumerate(literal["modules"]):
        for side, name in enumerate(("base", "source")):
            found = [ranks(p)[0] in NUMBERS[c][side] for p in answers_of(module, literal[name])]
            assert result.original_hits[c, :, side].tolist() == found


def test_what_is_missing_is_nan(result: cp.Robustness) -> None:
    assert result.layers == ("main.2", "both", "main.6")
    assert result.modules == ("one", "two", "three")
    assert result.present.tolist() == [[True, True, False], [False, True, False], [True, False, True]]
    for values in (result.recognition[..., 0], result.best, result.best_standard_error, result.entropy):
        assert (np.isnan(values) == ~result.present).all()
    assert (np.isnan(result.consensus) == ~result.present).all()
    assert [dict(units) for units in result.units] == [
        {layer: tuple(channels) for layer, channels in units.items()} for _, _, units in FLAT
    ]


def test_another_map_gives_other_rates(result: cp.Robustness) -> None:
    other = score(PLAIN.generator(), class_map=None)
    assert (other.answers == result.answers).all()
    assert not np.allclose(
        other.recognition[~np.isnan(other.recognition)], result.recognition[~np.isnan(result.recognition)]
    )
    swapped = score(PLAIN.generator(), classes=("night", "day"))
    np.testing.assert_array_equal(swapped.recognition[..., ::-1], result.recognition)


# --- the same, however it is run -------------------------------------------------------------------


def arrays(found: cp.Robustness) -> list[Any]:
    return [found.answers, found.hits, found.hits5, found.shown_at, found.original_hits]


def close(found: cp.Robustness) -> list[Any]:
    return [found.confidence, found.probabilities, found.entropies, found.distances, found.disagreement]


def test_the_same_bits_again_and_the_same_numbers_in_other_batches(result: cp.Robustness) -> None:
    again, few = score(PLAIN.generator()), score(PLAIN.generator(), hybrids_per_eval=2)
    for one, two in zip([*arrays(result), *close(result)], [*arrays(again), *close(again)], strict=True):
        np.testing.assert_array_equal(one, two)
    for one, two in zip(arrays(result), arrays(few), strict=True):
        np.testing.assert_array_equal(one, two)
    for one, two in zip(close(result), close(few), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)
    other = score(PLAIN.generator(), z2=Z1.flip(0))
    assert not np.allclose(other.distances, result.distances, equal_nan=True)


@pytest.mark.parametrize("toy", [NOISY, COUPLED], ids=lambda toy: toy.name)
def test_generators_that_run_one_sample_at_a_time(toy: Toy) -> None:
    z1, z2 = (toy.sampler(3, torch.Generator().manual_seed(seed)) for seed in (0, 1))
    units = {toy.layer: {"one": [0, 1]}}
    found = score(toy.generator(), z1=z1, z2=z2, units_by_layer=units, seed=5)
    own = [{toy.layer: [0, 1]}]
    hybrids, base = twins.hybrids(toy, z1, z2, own, 5)[0], twins.images(toy, z1, 5)
    expected = (hybrids - base).abs().mean((1, 2, 3))
    np.testing.assert_allclose(found.distances[0, 0, :, 0], expected, rtol=1e-5)
    to_source = (hybrids - twins.images(toy, z2, 5)).abs().mean((1, 2, 3))
    np.testing.assert_allclose(found.distances[0, 0, :, 1], to_source, rtol=1e-5)


def test_no_channel_is_the_base_and_all_channels_are_the_source() -> None:
    gen = PLAIN.generator()
    every = range(gen.layers["main.2"].channels)
    found = score(gen, units_by_layer={"main.2": {"none": {"main.2": []}, "all": every}})
    base, source = ([c.logits(gen(z), image_range=(-1, 1)).argmax(1) for c in classifiers()] for z in (Z1, Z2))
    assert (found.distances[0, 0, :, 0] == 0).all()
    np.testing.assert_allclose(found.distances[0, 1, :, 1], 0, atol=1e-6)
    np.testing.assert_allclose(found.distances[0, 0, :, 1], found.distances[0, 1, :, 0], rtol=1e-5)
    for c in range(2):
        assert found.answers[c, 0, 0].tolist() == base[c].tolist()
        assert found.answers[c, 0, 1].tolist() == source[c].tolist()
        assert base[c].tolist() != source[c].tolist()


def test_a_list_of_unit_sets_and_a_single_pair() -> None:
    gen = PLAIN.generator()
    found = score(gen, units_by_layer={"main.2": [[0, 1], {"main.2": [2]}]}, z1=Z1[:1], z2=Z2[:1], shown=0)
    assert found.modules == ("1", "2")
    assert np.isnan(found.best_standard_error).all()
    assert found.shown.shape == (0, 3, 3, 16, 16)
    assert found.disagreements() == []
    assert found.plot_disagreements()[1].get_title() == "no hybrid was kept"
    assert found.plot()[0].axes


def test_modules_and_classifiers_are_left_as_they_were() -> None:
    gen, own = PLAIN.generator(), classifiers()
    modules = [item.module for item in own]
    before = [{name: value.clone() for name, value in module.state_dict().items()} for module in modules]
    random = torch.get_rng_state()
    score(gen, classifiers=own)
    assert torch.equal(random, torch.get_rng_state())
    assert all(part.training for module in modules for part in module.modules())
    assert all(not part._forward_hooks for part in gen.module.modules())
    for module, state in zip(modules, before, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())


# --- known answers ---------------------------------------------------------------------------------


def test_entropy_of_known_distributions() -> None:
    assert entropy(torch.zeros(1, 10)).item() == pytest.approx(math.log(10))
    assert entropy(torch.tensor([[1000.0, 0.0, 0.0]])).item() == 0
    # Renormalised from logits: probabilities of 1e-50 in all ten would vanish in float32.
    assert entropy(torch.tensor([[-115.0, -115.0]])).item() == pytest.approx(math.log(2))


def test_divergence_of_known_masses() -> None:
    sure = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    assert divergence(sure).item() == pytest.approx(math.log(2))
    assert divergence(sure[[0, 0]]).item() == 0
    neither = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]], [[0.0, 0.0]]])
    assert divergence(neither).item() == pytest.approx(math.log(3))
    assert divergence(torch.full((4, 1, 2), 0.3)).item() == pytest.approx(0, abs=1e-12)


def test_ranking_of_known_rates() -> None:
    rng = np.random.default_rng(0)
    n, sets = 400, 3
    hits = np.zeros((3, sets, n, 2), np.bool_)
    hits[0, ..., 0] = rng.random((1, n)) < 0.5  # the same pair is hard in every set
    hits[1] = hits[0]
    hits[1, :, :40, 0] = True
    hits[2, ..., 1] = rng.random((sets, n)) < 0.9
    found = ranked(hits, ["even", "a little better", "good"], repetitions=500, confidence=0.95, seed=0)
    assert found.classifiers == ("good", "a little better", "even")
    rate = hits[0, 0, :, 0].mean()
    assert found.score[2] == pytest.approx(rate)
    error = math.sqrt(rate * (1 - rate) / n)
    assert found.high[2] - found.low[2] == pytest.approx(2 * 1.96 * error, rel=0.15)
    assert found.first.tolist() == [1, 0, 0]
    # Pairs are resampled for all classifiers at once: the difference is far surer than either rate.
    pairwise = ranked(hits[:2], ["even", "a little better"], repetitions=500, confidence=0.95, seed=0)
    assert pairwise.lead_low[1] > 0
    assert pairwise.lead_high[1] - pairwise.lead_low[1] < 0.7 * (found.high[2] - found.low[2])
    ties = ranked(hits[[0, 0]], ["one", "two"], repetitions=50, confidence=0.9, seed=0)
    assert np.abs([ties.lead_low, ties.lead_high]).max() < 1e-12
    assert ties.first.tolist() == [0.5, 0.5]
    again = ranked(hits, ["even", "a little better", "good"], repetitions=500, confidence=0.95, seed=0)
    other = ranked(hits, ["even", "a little better", "good"], repetitions=500, confidence=0.95, seed=1)
    assert again.low.tolist() == found.low.tolist() != other.low.tolist()
    assert str(found).splitlines()[0].startswith("1. good: 0.9")


# --- what becomes of it ----------------------------------------------------------------------------


def test_save_and_load(result: cp.Robustness, tmp_path: Path) -> None:
    loaded = cp.Robustness.load(result.save(tmp_path / "robustness.safetensors"))
    for one, two in zip([*arrays(result), *close(result)], [*arrays(loaded), *close(loaded)], strict=True):
        np.testing.assert_array_equal(one, two)
    assert torch.equal(loaded.shown, result.shown)
    assert (loaded.layers, loaded.modules, loaded.classes) == (result.layers, result.modules, result.classes)
    assert loaded.units == result.units
    assert json.loads(json.dumps(loaded.provenance)) == loaded.provenance
    assert str(loaded.ranking()) == str(result.ranking())
    assert (
        repr(loaded) == repr(result) == "Robustness(2 classifiers, 3 layers, 3 modules, 7 pairs; Deconv, day and night)"
    )
    with pytest.raises(cp.ProbeError, match="holds Robustness and not Hybrids"):
        cp.Hybrids.load(tmp_path / "robustness.safetensors")


def test_provenance_says_how_each_classifier_was_asked(result: cp.Robustness) -> None:
    few, many = result.provenance["classifiers"]
    assert few["preprocessing"] == OWN.to_json()
    assert few["counts_as"] == {"day": {"0": "day", "2": "dawn"}, "night": {"1": "night"}}
    assert many["counts_as"]["night"]["12"] == "night"
    assert few["weights_sha256"] != many["weights_sha256"]
    assert result.provenance["weights_sha256"] == PLAIN.generator().weights_hash()
    assert result.provenance["n_pairs"] == N


def test_tables(result: cp.Robustness, tmp_path: Path) -> None:
    lines = str(result).splitlines()
    assert lines[0] == repr(result)
    assert lines[1].split()[:3] == ["classifier", "layer", "module"]
    assert len(lines) == 2 + 2 * len(FLAT)
    with result.to_csv(tmp_path / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * len(FLAT)
    assert rows[0]["classifier"] == "few"
    assert float(rows[7]["night top-1"]) == result.recognition[1, 1, 1, 1]
    assert float(rows[7]["distance to night"]) == pytest.approx(result.distance[1, 1, 1, 1])
    content = json.loads(result.to_json(tmp_path / "table.json").read_text())
    assert content["rows"][0]["larger"] == result.best[0, 0, 0]
    assert content["ranking"]["classifiers"] == list(result.ranking().classifiers)


def test_disagreements_have_every_answer(result: cp.Robustness) -> None:
    first = result.disagreements()[0]
    layer, module, pair = result.shown_at[0]
    assert (first["layer"], first["pair"]) == (result.layers[layer], pair)
    name, probability = first["answers"]["many"]
    assert name == [*"abcdefghijkl", "night", "day"][result.answers[1, layer, module, pair]]
    assert probability == pytest.approx(float(result.confidence[1, layer, module, pair]))


def test_figures(result: cp.Robustness) -> None:
    figure, axes = result.plot()
    assert len(axes) == 2
    (line, *_), *_ = axes[0].containers
    np.testing.assert_allclose(line.get_ydata(), result.curve[0])
    np.testing.assert_allclose(
        axes[1].containers[1][0].get_ydata(), np.nanmean(result.distance[0, :, :, 1], 1), rtol=1e-5
    )
    assert [text.get_text() for text in axes[0].get_xticklabels()] == list(result.layers)
    given = figure.add_subplot()
    assert result.plot(given, quantity="distance")[1] is given
    _, grid = result.plot_entropy("many")
    assert grid.shape == (3, 3)
    drawn = [sum(bar.get_height() for bar in grid[row, column].patches) for row in range(3) for column in range(3)]
    assert drawn == [N if result.present[column, row] else 0 for row in range(3) for column in range(3)]
    _, ax = result.plot_disagreements()
    words = " ".join(text.get_text() for text in ax.texts)
    assert "few: " in words
    assert "base (day)" in words
    with pytest.raises(cp.ProbeError, match="quantity is 'entropy'; give 'recognition' or 'distance'"):
        result.plot(quantity="entropy")  # type: ignore[arg-type]
    with pytest.raises(cp.ProbeError, match="no classifier is named 'lots' here; give one of few, many"):
        result.plot_entropy("lots")


# --- what can be wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ("day",)}, r"classes are \('day',\); give two different ones"),
        ({"classes": ("day", "day")}, "give two different ones, of the bases and of the sources"),
        ({"classes": "day"}, "classes are 'day'; give two"),
        (
            {"class_map": {"day": 0}},
            r"class_map names \['day'\] and not class 'night'; add what classifier 'few' calls it",
        ),
        ({"class_map": {"day": 0, "night": 7}}, "class 7 is asked of classifier 'few', which has 4; give 0 to 3"),
        ({"class_map": {"day": 0, "night": []}}, "class_map holds no class for 'night'; give one of classifier 'few'"),
        ({"class_map": {"day": 0, "night": [1, 0]}}, "class 'day' of classifier 'few' counts as 'day' and as 'night'"),
        (
            {"class_map": {"day": "daz", "night": 1}},
            "class 'daz' is none of the 4 classes of classifier 'few'; nearest: 'day'",
        ),
        ({"class_map": [0, 1]}, "class_map is a list; give {generator's class: classifier's classes}"),
        (
            {"class_map": None, "classes": ("dawn", "night")},
            "class 'dawn' is none of the 14 classes of classifier 'many'",
        ),
        ({"units_by_layer": {}}, "units_by_layer is {}; give {layer: {module: units}}"),
        ({"units_by_layer": [[0]]}, r"units_by_layer is \[\[0\]\]; give"),
        ({"units_by_layer": {"main.2": 3}}, "units_by_layer holds 3 for 'main.2'; give {module: units}"),
        ({"units_by_layer": {"main.22": {"one": [0]}}}, "layer 'main.22' is not in this generator; nearest: 'main.2'"),
        ({"units_by_layer": {"main.2": {"one": [99]}}}, "channel 99 asked of layer 'main.2', which has"),
        (
            {"units_by_layer": {"main.2": {"one": [[0], [1]]}}},
            r"module 'one' of 'main.2' is \[\[0\], \[1\]\]; give one unit set",
        ),
        ({"units_by_layer": {"main.2": {"one": None}}}, "module 'one' of 'main.2' is None; give one unit set"),
        ({"z2": Z2[:3]}, "z1 holds 7 latents and z2 holds 3"),
        ({"shown": -1}, "shown is -1; give an integer of at least 0"),
        ({"z1": Z1 * math.nan}, "holds NaN or infinite values"),
    ],
)
def test_one_sentence_for_each_mistake(options: dict[str, Any], message: str) -> None:
    with pytest.raises(cp.ProbeError, match=message):
        score(PLAIN.generator(), **options)


class Breaking(nn.Module):
    """NaN for images that are not grey."""

    def forward(self, inputs: Tensor) -> Tensor:
        logits = inputs.mean((2, 3))[:, :2].clone()
        logits[inputs.std((1, 2, 3)) > 0] = torch.nan
        return logits


def test_classifiers_that_cannot_be_used() -> None:
    gen = PLAIN.generator()
    few = classifiers()[0]
    with pytest.raises(
        cp.ProbeError, match="'Breaking' gives NaN or infinite logits for the base of pair 0; check its"
    ):
        score(gen, classifiers=[cp.Classifier(Breaking(), OWN)], class_map={"day": 0, "night": 1})
    with pytest.raises(cp.ProbeError, match="two classifiers are named 'few'; give each a name of its own"):
        cp.RobustnessProbe(gen, [few, few])
    with pytest.raises(cp.ProbeError, match="no classifier is given"):
        cp.RobustnessProbe(gen, [])
    with pytest.raises(cp.ProbeError, match=r"a classifier is a Sequential; give cp\.Classifier\(module"):
        cp.RobustnessProbe(gen, [few.module])  # type: ignore[list-item]
    with pytest.raises(cp.ProbeError, match="no classifier named 'resnetv2_5O' is in the registry or in timm"):
        cp.RobustnessProbe(gen, "resnetv2_5O")
    with pytest.raises(cp.ProbeError, match=r"the generator is a Sequential; make it one with cp\.wrap"):
        cp.RobustnessProbe(few.module, few)  # type: ignore[arg-type]
    assert repr(cp.RobustnessProbe(gen, few)) == "RobustnessProbe('Deconv', few)"


def test_images_outside_the_range_that_was_declared() -> None:
    gen = cp.wrap(PLAIN.module(), PLAIN.sampler, image_range=(0.0, 1e-3))
    with pytest.raises(
        cp.ProbeError, match=r"images hold values from .* and image_range is \(0, 0\.001\); give the range"
    ):
        score(gen)


def test_a_full_disk_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def write(self, _: Any) -> None:
            raise OSError(28, "No space left on device")

        def close(self) -> None:
            pass

    monkeypatch.setattr("tempfile.TemporaryFile", Full)
    with pytest.raises(
        cp.ProbeError, match=r"logits cannot be kept in a temporary file \(.*No space left.*; make room in"
    ):
        score(PLAIN.generator())
