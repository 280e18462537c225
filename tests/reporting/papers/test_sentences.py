"""Words for pictures: regions, and sentences computed from numbers."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import counterfactual_probe as cp
from counterfactual_probe.modules.confidence import ExpectedDisagreement
from counterfactual_probe.registry.naming import module_names
from counterfactual_probe.registry.regions import Regions, generic_regions
from counterfactual_probe.reporting import words
from counterfactual_probe.reporting.layer import figures as layer_figures
from counterfactual_probe.reporting.papers import channels, modules
from counterfactual_probe.reporting.papers.study import PapersLayer, PapersSettings, PapersStudy, run_papers_study
from counterfactual_probe.reporting.section import CaptionedFigure, shown
from support.figures import column_names, legend_names, row_names

NUMBERED = ["module 1", "module 2", "module 3"]
FACES = cp.pretrained("dcgan-faces").regions


@pytest.fixture(scope="module")
def layer() -> PapersLayer:
    settings = PapersSettings(n_pairs=2, repetitions=1, shown=1, counts=(3,))
    return run_papers_study(cp.load("dcgan-faces"), ["main.8"], settings=settings).layers[0]


def regions() -> Regions:
    assert FACES is not None
    return FACES()


# What is in no part of a face: every third pixel along the diagonals.
LATTICES = [np.indices((64, 64)).sum(0) % 3 == k for k in range(3)]


def with_templates(layer: PapersLayer, *templates: np.ndarray) -> PapersLayer:
    """The same study, of channels that act in the given places, eight in each."""
    maps = np.repeat(np.stack(templates).astype(float), 8, axis=0)
    finder = cp.ModuleFinder(len(templates), window=1, percentile=0).fit(maps)
    return dataclasses.replace(layer, finders=(finder, finder))


def in_blocks(layer: PapersLayer, steady: Sequence[int]) -> PapersLayer:
    """The same study, of 16 blocks of pairs: ``steady[k]`` channels act in third k of the image in every block.

    All others act in each third about as often.
    """
    given, rng = layer.maps[0], np.random.default_rng(0)
    # One third in six blocks of 16, the others in five.
    thirds = rng.permuted((np.arange(16) + np.arange(len(given))[:, None]) % 3, axis=1)
    thirds[: sum(steady)] = np.repeat(range(3), steady)[:, None]
    strength = 1 + rng.random(len(given))
    rows = np.arange(64) // 22
    sums = torch.from_numpy((rows == thirds[..., None]) * strength[:, None, None]).float()
    sums = sums[..., None].expand(-1, -1, -1, 64).contiguous()
    pairs = torch.full_like(given.n_pairs, 16)
    means = sums.mean(1)
    maps = dataclasses.replace(given, maps=means, influence=means.mean((1, 2)), n_pairs=pairs, block_sums=sums)
    finder = cp.ModuleFinder(3, window=1, percentile=60).fit(maps)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExpectedDisagreement)
        selection = cp.ModuleFinder.choose(maps, [3], repetitions=1, window=1, percentile=60)
        assert finder.expected_ari_ < 0.9
    return dataclasses.replace(layer, maps=(maps, maps), finders=(finder, finder), selection=selection)


def test_sure_channels_are_named_by_module(layer: PapersLayer) -> None:
    assert channels.trusted_sentence(layer, NUMBERED) is None  # of two pairs nothing is known
    known = in_blocks(layer, (29, 1, 0))
    finder, influence = known.finder, known.maps[0].influence.numpy()
    sure = [channel for channel in influence.argsort()[::-1] if finder.confidence_[channel] >= 0.9]
    assert sorted(sure) == list(range(30))
    many, one = finder.labels_[0], finder.labels_[29]
    assert many != one
    first = [str(channel) for channel in sure if channel != 29]
    named = {many: f"{', '.join(first[:24])} and 5 more", one: "29"}
    sentence = channels.trusted_sentence(known, NUMBERED)
    assert sentence is not None
    assert sentence.startswith(f"30 of {len(influence)} channels are confident")
    assert sentence.endswith("; ".join(f"module {k + 1}: {named.get(k, 'none')}" for k in range(3)) + ".")


@pytest.mark.usefixtures("undrawn")
def test_where_no_channel_is_sure_none_is_named(layer: PapersLayer) -> None:
    known = in_blocks(layer, (0, 0, 0))
    assert (known.finder.confidence_ < 0.9).all()
    assert channels.trusted_sentence(known, NUMBERED) == channels.confident_sentence(known)
    assert channels.confident_sentence(known).startswith("0 of 128 channels are confident")
    assert channels.describe_channels(one_layer(known), known, NUMBERED).in_short == channels.confident_sentence(known)


def one_layer(layer: PapersLayer) -> PapersStudy:
    return PapersStudy("made", {}, PapersSettings(), (layer,), ())


def test_the_earlier_sentence_says_yes_in_part_and_no(layer: PapersLayer) -> None:
    eyes, frame, skin = (regions().masks[name].astype(float) for name in regions().expected)
    agrees = modules.earlier_sentence(with_templates(layer, skin, eyes, frame), regions())
    assert agrees is not None
    assert "showed eyes and mouth, frame and face skin" in agrees
    assert agrees.count("agrees: each of them has its own template") == 2
    part = modules.earlier_sentence(with_templates(layer, LATTICES[0], eyes, frame), regions())
    assert part is not None
    assert "it shows eyes and mouth and frame and not face skin" in part
    no = modules.earlier_sentence(with_templates(layer, *LATTICES), regions())
    assert no is not None
    assert "does not agree" in no


def test_no_earlier_study_is_claimed_for_other_layers_or_numbers(layer: PapersLayer) -> None:
    other = dataclasses.replace(layer, layer=dataclasses.replace(layer.layer, name="main.5"))
    assert modules.earlier_sentence(other, regions()) is None
    assert modules.earlier_sentence(layer, generic_regions(64, 64)) is None


def test_template_sentence_counts_channels(layer: PapersLayer) -> None:
    sentence = modules.template_sentence(layer, regions())
    for k, units in enumerate(layer.finder.modules_, 1):
        assert f"module {k} ({units.size} channels)" in sentence
    assert sentence.startswith("At main.8, K = 3:")


def test_figures_and_sentences_call_modules_by_what_they_show(
    layer: PapersLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = module_names(layer.finder.templates_, regions())
    assert any(name in regions().masks for name in names)
    figures: dict[str, Figure] = {}

    def recorded(name: str, figure: Figure, *words: str, **options: bool) -> CaptionedFigure:
        figures[name] = figure
        return shown(name, figure, *words, **options)

    for module in (modules, channels, layer_figures):
        monkeypatch.setattr(module, "shown", recorded)
    section = modules.describe_modules(one_layer(layer), layer, regions())
    specific = next(words for words in section.sentences if words.startswith("Specificity"))
    assert layer.quality is not None
    assert all(f"{name} {value:.2f}" in specific for name, value in zip(names, layer.quality.specificity, strict=True))
    assert [title.splitlines()[0] for title in column_names(figures["templates_main.8"].axes[0])] == names
    rows = [name.splitlines()[0] for name in row_names(figures["hybrids_main.8"].axes[0])]
    assert rows == ["base", "source", *names]
    described = channels.describe_channels(one_layer(layer), layer, names)
    assert legend_names(figures["channels_main.8"].axes[0]) == names
    mosaic = [text.get_text() for text in figures["influence_main.8"].axes[0].texts]
    assert sorted(map(int, mosaic)) == list(range(128))
    colours = described.figures[0].sentence
    assert all(f"{colour}: {name}" in colours for colour, name in zip(("blue", "orange", "green"), names, strict=True))


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


def test_stability_and_errors_are_in_the_sentences(layer: PapersLayer) -> None:
    sentence = modules.stability_sentence(layer)
    assert "Between two samples of 2 pairs" in sentence
    assert f"{layer.at('ari', 3):.2f}" in sentence
    errors = layer.relative_errors
    assert len(errors) == 128
    assert f"{100 * float(np.median(errors)):.0f} %" in channels.error_sentence(layer)


def test_the_errors_are_those_of_the_maps_that_act(layer: PapersLayer) -> None:
    maps = dataclasses.replace(layer.maps[0], maps=layer.maps[0].maps.clone())
    maps.maps[[3, 5]] = 0.0
    errors = dataclasses.replace(layer, maps=(maps, maps)).relative_errors
    alive = [channel for channel in range(128) if channel not in (3, 5)]
    np.testing.assert_array_equal(errors, layer.maps[0].relative_error[alive].numpy())


def test_a_template_has_a_part_from_one_threshold_on(layer: PapersLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    eyes, frame, skin = (regions().masks[name].astype(float) for name in regions().expected)
    monkeypatch.setattr(modules, "RESEMBLES_FROM", 1.1)
    sentence = modules.earlier_sentence(with_templates(layer, skin, eyes, frame), regions())
    assert sentence is not None
    assert sentence.count("does not agree: it shows none of them") == 2


def test_what_was_not_compared_is_said_in_words(layer: PapersLayer) -> None:
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
