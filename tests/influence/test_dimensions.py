"""Outputs that are no pictures, volumes and sound: maps keep their dimensions, and what needs two says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import counterfactual_probe as cp
from counterfactual_probe.base.display.flat import as_pictures
from support.toys import Toy
from support.twins import gap, one
from support.unit_models import VOCODER, VOLUME

FORMS = [pytest.param(VOLUME, (8, 8, 8), id="volume"), pytest.param(VOCODER, (32,), id="sound")]


@pytest.mark.filterwarnings("ignore::counterfactual_probe.modules.confidence.ExpectedDisagreement")
@pytest.mark.parametrize(("toy", "size"), FORMS)
def test_maps_modules_and_files_keep_the_dimensions(toy: Toy, size: tuple[int, ...], tmp_path: Path) -> None:
    generator = toy.generator()
    assert generator.image_size == (1, *size)
    influence = cp.InfluenceMap(generator, toy.layer)
    maps = influence.attribute(n_pairs=16, blocks=4, normalise="pair", components=4)
    assert maps.maps.shape == maps.standard_error.shape == (6, *size)
    z1, z2 = generator.sample(16, seed=0), generator.sample(16, seed=0, stream=1)
    hybrids = cp.Hybridizer(generator, toy.layer).hybridize(z1, z2)
    assert hybrids.images.shape == (6, 16, 1, *size)
    assert gap(maps.maps, (hybrids.images - hybrids.base).abs().mean((1, 2))) <= 1e-6
    small = influence.attribute(n_pairs=16, map_size=tuple(side // 2 for side in size))
    pooled = maps.maps
    for dim in range(1, 1 + len(size)):
        pooled = pooled.unflatten(dim, (-1, 2)).mean(dim + 1)
    assert gap(small.maps, pooled) <= 1e-6
    loaded = cp.InfluenceMaps.load(maps.save(tmp_path / "maps.safetensors"))
    assert torch.equal(loaded.maps, maps.maps)
    assert "×".join(map(str, size)) in repr(loaded)
    assert torch.equal(cp.Hybrids.load(hybrids.save(tmp_path / "hybrids")).images, hybrids.images)
    for features in ("bits", "l2", "pca"):
        finder = cp.ModuleFinder(2, features=features).fit(maps)
        assert finder.templates_.shape == (2, *size)
        again = cp.ModuleFinder.load(finder.save(tmp_path / "modules.safetensors"))
        np.testing.assert_array_equal(again.templates_, finder.templates_)
        assert len(finder.confidence_) == 6
    for shown in (maps, hybrids, finder, generator.show(2)):
        plot = shown if not hasattr(shown, "plot") else shown.plot()
        assert plot[1].images
    pair = one(z1, 0), one(z2, 0)
    assert cp.InfluenceMap(generator, toy.layer).attribute(*pair, where=torch.ones(size)).maps.shape == (6, *size)


@pytest.mark.parametrize("toy", [VOLUME, VOCODER], ids=lambda toy: toy.name)
def test_what_needs_two_dimensions_says_so(toy: Toy) -> None:
    generator = toy.generator()
    output = "×".join(map(str, generator.image_size))
    needs = f"needs pictures of two dimensions and this generator's output is {output}; read two dimensions"
    with pytest.raises(cp.ProbeError, match="RobustnessProbe " + needs):
        cp.RobustnessProbe(generator, ["none"])
    with pytest.raises(cp.ProbeError, match="FidelityTest " + needs):
        cp.FidelityTest(generator, toy.layer)
    with pytest.raises(cp.ProbeError, match="the stretch test " + needs):
        cp.StretchTest(generator, toy.layer)


def test_without_image_three_dimensions_are_refused() -> None:
    """They may be tokens, which are read off the output by the user alone."""
    with pytest.raises(cp.ProbeError, match=r"where images \(n, C, H, W\) are needed; pass image=.* or to sound"):
        cp.wrap(VOCODER.plain(), VOCODER.sampler)
    with pytest.raises(cp.ProbeError, match=r"gives \(3, 8\) for 3 latents where images"):
        cp.wrap(torch.nn.Linear(5, 8), lambda n, rng: torch.randn(n, 5, generator=rng), image=lambda out: out)


def test_strips_and_slices() -> None:
    line = np.arange(16.0).reshape(1, 16)
    assert as_pictures(line, 1).shape == (1, 2, 16)
    np.testing.assert_array_equal(as_pictures(line, 1)[0, 1], line[0])
    volume = np.arange(5)[:, None, None] * np.ones((5, 2, 3))
    shown = as_pictures(volume[None], 3)[0]
    assert shown.shape == (2, 12)
    assert set(shown[0]) <= set(range(5))
    assert len(set(shown[0])) == 4
    picture = np.zeros((3, 4, 4))
    assert as_pictures(picture, 2) is picture
