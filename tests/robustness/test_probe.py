"""Robustness of classifiers to hybrids, against a literal twin, and the same however it is run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import counterfactual_probe as cp
from counterfactual_probe.base.memory import in_slices
from support import twins
from support.analyses.robust_toys import FLAT, Z1, Z2, N, arrays, classifiers, close, linear, score, unit
from support.toys import COUPLED, NOISY, PLAIN, Toy


@pytest.fixture(scope="module")
def result() -> cp.Robustness:
    return score(PLAIN.generator())


# --- the literal twin ------------------------------------------------------------------------------


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


class Small(nn.Module):
    """A classifier that has room for so many images. A hook keeps the log, since what a forward keeps is put back."""

    rows: ClassVar[list[int]] = []

    def __init__(self, inner: nn.Module, room: int) -> None:
        super().__init__()
        self.inner, self.room = inner, room
        self.register_forward_pre_hook(lambda _, given: Small.rows.append(len(given[0])))

    def forward(self, inputs: Tensor) -> Tensor:
        if len(inputs) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate more than there is")
        logits: Tensor = self.inner(inputs)
        return logits


@pytest.mark.parametrize("room", [2, 5])
def test_classifiers_that_run_out_of_memory_get_fewer_images(result: cp.Robustness, room: int) -> None:
    few, many = classifiers()
    small = Small(few.module, room)
    tight = cp.Classifier(small, few.transform, class_names=few.class_names, name="few")
    small.rows.clear()
    found = score(PLAIN.generator(), classifiers=[tight, many])
    for one, two in zip(arrays(result), arrays(found), strict=True):
        np.testing.assert_array_equal(one, two)
    for one, two in zip(close(result), close(found), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)
    # Found out once, and not again in every batch.
    assert sum(rows > room for rows in small.rows) == {5: 3, 2: 4}[room]


def test_slices_are_halved_and_never_longer_than_what_is_left() -> None:
    asked: list[tuple[int, int]] = []

    def run(index: slice) -> int:
        asked.append((index.start, index.stop))
        if index.stop - index.start > 2:
            raise MemoryError
        return index.stop

    assert list(in_slices(7, 8, run, "one")) == [1, 2, 3, 4, 5, 6, 7]
    assert asked == [(0, 7), (0, 3), *((i, i + 1) for i in range(7))]

    def refused(_: slice) -> int:
        raise MemoryError

    with pytest.raises(cp.ProbeError, match=r"memory ran out in one;"):
        list(in_slices(1, 8, refused, "one"))


def test_a_classifier_without_room_for_one_image() -> None:
    few, many = classifiers()
    small = Small(few.module, 2)
    tight = cp.Classifier(small, few.transform, class_names=few.class_names, name="few")
    small.room = 0
    with pytest.raises(cp.ProbeError, match=r"memory ran out in the classification of a single image; use a device"):
        score(PLAIN.generator(), classifiers=[tight, many])


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
