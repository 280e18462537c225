"""Words for pictures: regions, and sentences computed from numbers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import counterfactual_probe as cp
from counterfactual_probe.modules.confidence import Confidence
from counterfactual_probe.registry.regions import Regions, agreement, describe, generic_regions
from counterfactual_probe.reporting import channels, modules, words
from counterfactual_probe.reporting.study import LayerStudy, Settings, Study, run_study

FACES = cp.pretrained("dcgan-faces").regions


@pytest.fixture(scope="module")
def layer() -> LayerStudy:
    settings = Settings(n_pairs=2, repetitions=1, shown=1, counts=(3,))
    return run_study(cp.load("dcgan-faces"), ["main.8"], settings=settings).layers[0]


def regions() -> Regions:
    assert FACES is not None
    return FACES()


def with_templates(layer: LayerStudy, *templates: np.ndarray) -> LayerStudy:
    """The same study with other templates in both draws."""
    finders = []
    for finder in layer.finders:
        copied = cp.ModuleFinder(finder.n_modules)
        copied.__dict__.update(finder.__dict__)
        copied.templates_ = np.stack(templates)
        finders.append(copied)
    return dataclasses.replace(layer, finders=(finders[0], finders[1]))


def test_sure_channels_are_named_by_module(layer: LayerStudy) -> None:
    assert channels.trusted_sentence(layer) is None  # of two pairs nothing is known
    maps, finder = layer.maps[0], cp.ModuleFinder(2)
    finder.__dict__.update(layer.finder.__dict__)
    n, strongest = len(maps), maps.influence.numpy().argsort()[::-1]
    finder.n_modules, finder.labels_ = 3, np.zeros(n, np.int64)
    finder.labels_[strongest[1]] = 1
    kept = np.zeros(n)
    kept[strongest[:30]] = 0.95
    finder._confidence = Confidence(kept, np.ones(3))
    known = dataclasses.replace(layer, finders=(finder, finder), selection=1)  # type: ignore[arg-type]
    sentence = channels.trusted_sentence(known)
    assert sentence is not None
    assert sentence.startswith(f"30 of {n} channels are sure")
    first = ", ".join(str(channel) for channel in [strongest[0], *strongest[2:25]])
    assert sentence.endswith(f"module 1: {first} and 5 more; module 2: {strongest[1]}; module 3: none.")
    finder._confidence = Confidence(np.zeros(n), np.ones(3))
    assert channels.trusted_sentence(known) == channels.sure_sentence(known)
    assert channels.describe_channels(one_layer(known), known).in_short == channels.sure_sentence(known)


def one_layer(layer: LayerStudy) -> Study:
    return Study("made", {}, Settings(), (layer,), ())


def test_a_region_is_recognised_and_noise_is_not() -> None:
    generic = generic_regions(20, 30)
    rng = np.random.default_rng(0)
    for name, mask in generic.masks.items():
        noisy = mask + 0.3 * rng.standard_normal(mask.shape)
        assert describe(noisy[None], generic)[0][0] == name
    assert describe(rng.standard_normal((1, 20, 30)), generic)[0][0] is None
    assert describe(np.zeros((1, 20, 30)), generic)[0] == (None, 0.0)


def test_the_parts_of_a_face_do_not_overlap() -> None:
    masks = [regions().masks[name] for name in regions().expected]
    assert (sum(mask.astype(int) for mask in masks) <= 2).all()
    skin, features = regions().masks["face skin"], regions().masks["eyes and mouth"]
    assert not (skin & features).any()
    assert features.mean() > 0.05
    assert skin.mean() > 0.2


def test_agreement_matches_parts_one_to_one() -> None:
    parts = [regions().masks[name].astype(float) for name in regions().expected]
    found = agreement(np.stack(parts[::-1]), regions())
    assert [(name, k) for name, k, _ in found] == [("eyes and mouth", 2), ("frame", 1), ("face skin", 0)]
    assert all(value == pytest.approx(1.0) for _, _, value in found)


def test_the_earlier_sentence_says_yes_in_part_and_no(layer: LayerStudy) -> None:
    eyes, frame, skin = (regions().masks[name].astype(float) for name in regions().expected)
    flat = np.zeros_like(eyes)
    agrees = modules.earlier_sentence(with_templates(layer, skin, eyes, frame), regions())
    assert agrees is not None
    assert "showed eyes and mouth, frame and face skin" in agrees
    assert agrees.count("agrees: each of them has its own template") == 2
    part = modules.earlier_sentence(with_templates(layer, flat, eyes, frame), regions())
    assert part is not None
    assert "it shows eyes and mouth and frame and not face skin" in part
    no = modules.earlier_sentence(with_templates(layer, flat, flat, flat), regions())
    assert no is not None
    assert "does not agree" in no


def test_no_earlier_study_is_claimed_for_other_layers_or_numbers(layer: LayerStudy) -> None:
    other = dataclasses.replace(layer, layer=dataclasses.replace(layer.layer, name="main.5"))
    assert modules.earlier_sentence(other, regions()) is None
    assert modules.earlier_sentence(layer, generic_regions(64, 64)) is None


def test_template_sentence_counts_channels(layer: LayerStudy) -> None:
    sentence = modules.template_sentence(layer, regions())
    for k, units in enumerate(layer.finder.modules_, 1):
        assert f"module {k} ({units.size} channels)" in sentence
    assert sentence.startswith("At main.8, K = 3:")


@pytest.mark.parametrize(
    ("ari", "expected"),
    [
        (0.95, "nearly the same"),
        (0.75, "mostly the same"),
        (0.5, "related"),
        (0.2, "weakly"),
        (0.0, "unrelated"),
    ],
)
def test_the_rand_index_in_words(ari: float, expected: str) -> None:
    assert expected in words.ari_words(ari)


def test_stability_and_errors_are_in_the_sentences(layer: LayerStudy) -> None:
    sentence = modules.stability_sentence(layer)
    assert "Between two draws of 2 pairs" in sentence
    assert f"{layer.at('ari', 3):.2f}" in sentence
    errors = layer.relative_errors
    assert len(errors) == 128
    assert f"{100 * float(np.median(errors)):.0f} %" in channels.error_sentence(layer)


def test_the_errors_are_those_of_the_maps_that_act(layer: LayerStudy) -> None:
    maps = dataclasses.replace(layer.maps[0], maps=layer.maps[0].maps.clone())
    maps.maps[[3, 5]] = 0.0
    errors = dataclasses.replace(layer, maps=(maps, maps)).relative_errors
    alive = [channel for channel in range(128) if channel not in (3, 5)]
    np.testing.assert_array_equal(errors, layer.maps[0].relative_error[alive].numpy())


def test_a_template_has_a_part_from_one_threshold_on(layer: LayerStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    eyes, frame, skin = (regions().masks[name].astype(float) for name in regions().expected)
    monkeypatch.setattr(modules, "NAMED_FROM", 1.1)
    sentence = modules.earlier_sentence(with_templates(layer, skin, eyes, frame), regions())
    assert sentence is not None
    assert sentence.count("does not agree: it shows none of them") == 2


def test_what_was_not_compared_is_said_in_words(layer: LayerStudy) -> None:
    assert layer.why_no_subsets is None
    assert "NMF and" in modules.stability_sentence(layer)
    draws = {
        method: dataclasses.replace(found, consistency=np.zeros((1, 0)), cosine=np.zeros((1, 0)))
        for method, found in layer.stability.items()
    }
    unrepeated = dataclasses.replace(layer, stability=draws)
    assert unrepeated.why_no_subsets == "no repetitions"
    sentence = modules.stability_sentence(unrepeated)
    assert sentence.endswith("Subsets of the channels were not compared: no repetitions.")
    assert "nan" not in sentence
