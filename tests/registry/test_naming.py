"""What a template shows is decided in one place, by the evidence: for given parts, segmentations, neutral words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import counterfactual_probe as cp
from counterfactual_probe.registry.naming import Evidence, agreement, module_names, shown_regions
from counterfactual_probe.registry.regions import Regions, generic_regions, given_regions
from counterfactual_probe.registry.segmentation import regions_of
from support.toys import PLAIN

FACES = cp.pretrained("dcgan-faces").regions


def faces() -> Regions:
    assert FACES is not None
    return FACES()


def test_a_region_is_recognised_and_noise_is_not() -> None:
    generic = generic_regions(20, 30)
    rng = np.random.default_rng(0)
    for name, mask in generic.masks.items():
        noisy = mask + 0.3 * rng.standard_normal(mask.shape)
        assert shown_regions(noisy[None], generic)[0].name == name
    assert shown_regions(rng.standard_normal((1, 20, 30)), generic)[0].region is None
    assert shown_regions(np.zeros((1, 20, 30)), generic)[0] == (None, 0.0)


def test_between_the_thresholds_a_template_resembles() -> None:
    mask = generic_regions(20, 30).masks["left"]
    regions, rng = Regions({"left": mask}), np.random.default_rng(0)
    names = []
    for noise in (0.3, 1.0, 3.0):
        (found,) = shown_regions((mask + noise * rng.standard_normal(mask.shape))[None], regions)
        names.append(found.name)
    assert names == ["left", "resembles left", None]


def test_a_template_that_is_dark_in_a_part_shows_all_but_it() -> None:
    generic = generic_regions(20, 30)
    regions = Regions({"centre": generic.masks["centre"]})
    (found,) = shown_regions(1.0 - generic.masks["centre"][None], regions)
    assert found.name == "all but centre"
    assert found.words == "shows all but centre (correlation 1.00)"


@pytest.mark.parametrize(
    ("evidence", "named"),
    [
        (Evidence(), True),
        (Evidence(0.8, 0.9, 1.0), True),
        (Evidence(0.3, 0.9, 1.0), False),  # other latents would give other modules
        (Evidence(0.8, 0.4, 1.0), False),  # other latents would give other channels
        (Evidence(0.8, 0.9, 0.5), False),  # random channels act there as well
        (Evidence(None, 0.9, None), True),
    ],
)
def test_noise_has_no_name_whatever_it_looks_like(evidence: Evidence, named: bool) -> None:
    generic = generic_regions(20, 30)
    template = generic.masks["left"][None].astype(float)
    assert module_names(template, generic, [evidence]) == (["left"] if named else ["module 1"])


def test_the_parts_of_a_face_do_not_overlap() -> None:
    masks = [faces().masks[name] for name in faces().expected]
    assert (sum(mask.astype(int) for mask in masks) <= 2).all()
    skin, features = faces().masks["face skin"], faces().masks["eyes and mouth"]
    assert not (np.asarray(skin, bool) & np.asarray(features, bool)).any()
    assert features.mean() > 0.05
    assert skin.mean() > 0.2


def test_agreement_matches_parts_one_to_one() -> None:
    parts = [faces().masks[name].astype(float) for name in faces().expected]
    found = agreement(np.stack(parts[::-1]), faces())
    assert [(name, k) for name, k, _ in found] == [("eyes and mouth", 2), ("frame", 1), ("face skin", 0)]
    assert all(value == pytest.approx(1.0) for _, _, value in found)


def test_masks_are_averaged_down_to_the_maps() -> None:
    mask = np.zeros((4, 6), bool)
    mask[0, 0] = mask[:2, 2:4] = True
    small = Regions({"a": mask}).resized(2, 3).masks["a"]
    assert small.tolist() == [[0.25, 1, 0], [0, 0, 0]]


def test_given_masks_are_used_and_mistakes_said() -> None:
    gen = PLAIN.generator()
    size = tuple(gen.image_size[1:])
    upper = np.zeros(size)
    upper[: size[0] // 2] = 1
    assert list(regions_of(gen, {"sky": upper}).masks) == ["sky"]
    for wrong, sentence in (
        ({"sky": upper[1:]}, "region 'sky' has shape"),
        ({"sky": 2 * upper}, "region 'sky' holds values beyond 0 to 1"),
        ({"sky": "above"}, "region 'sky' is 'above'; give a mask"),
        ({}, "regions is empty"),
        (3, "regions is 3; give masks by name, or a module or function"),
    ):
        with pytest.raises(cp.ProbeError, match=sentence):
            regions_of(gen, wrong)  # type: ignore[arg-type]
    with pytest.raises(cp.ProbeError, match="beyond 0 to 1"):
        given_regions({"a": np.full((2, 2), np.nan)}, (2, 2))


class Halves(nn.Module):
    """Scores of two labels: the left and the right half of an image."""

    names = ("left half", "right half")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        columns = torch.arange(images.shape[-1]).expand(images.shape[0], images.shape[-2], -1)
        left = (columns < images.shape[-1] // 2).float()
        return torch.stack([left, 1 - left], 1)


def test_a_segmentation_gives_the_parts_of_any_generator() -> None:
    gen = PLAIN.generator()
    for segment in (Halves(), lambda images: Halves()(images).argmax(1).numpy(), lambda x: {"out": Halves()(x)}):
        regions: Any = regions_of(gen, segment)
        left, right = regions.masks.values()
        width = gen.image_size[2]
        assert left[:, : width // 2].min() == right[:, width // 2 :].min() == 1
        assert left.sum() + right.sum() == left.size
    assert list(regions_of(gen, Halves()).masks) == ["left half", "right half"]


def test_a_segmentation_that_fails_is_blamed() -> None:
    gen = PLAIN.generator()
    with pytest.raises(cp.ProbeError, match="regions raised ZeroDivisionError"):
        regions_of(gen, lambda images: 1 / 0)
    with pytest.raises(cp.ProbeError, match="regions returned labels of shape"):
        regions_of(gen, lambda images: images[:, 0, :-1].round())


def test_a_registered_generator_has_its_own_parts_and_another_neutral_ones() -> None:
    assert list(regions_of(cp.load("dcgan-faces")).masks) == list(faces().masks)
    assert list(regions_of(PLAIN.generator()).masks)[:3] == ["centre", "border", "image edge"]
