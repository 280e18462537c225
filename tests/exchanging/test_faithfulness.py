"""Faithfulness: hybrids that the generator makes itself are found, and others are not mistaken for them."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import counterfactual_probe as cp
from exchanging.planted import MODULES, exchanged, parts

SEARCH: dict[str, Any] = {"images": 4, "steps": 120, "controls": 9}


@cache
def searched(image: Any, own: bool) -> cp.Exchanged:
    return exchanged(parts(image, own=own), **SEARCH)


def means(found: cp.Exchanged) -> dict[str, float]:
    return {row["group"]: row["faithfulness"] for row in found.by_group()}


def test_a_cartesian_product_is_faithful() -> None:
    found = searched("apart", True)
    assert found.groups == ("other samples", "mixed latents", *MODULES, "random sets", "collages")
    shown = means(found)
    assert all(shown[name] > 0.999 for name in ("mixed latents", *MODULES))
    assert shown["random sets"] < 0.9  # mixed within modules, which no latent does
    assert shown["collages"] > 0.999  # of parts that are apart, a collage is a hybrid


def test_parts_that_share_their_latents_are_separate_and_not_faithful() -> None:
    found = searched("apart", False)
    np.testing.assert_allclose(found.separation, 1, atol=1e-12)
    np.testing.assert_allclose(found.interaction[~np.eye(3, dtype=bool)], 0, atol=1e-12)
    shown = means(found)
    assert shown["mixed latents"] > 0.999
    assert all(shown[name] < 0.9 for name in MODULES)


def test_a_product_of_independent_factors_is_faithful_and_not_separate() -> None:
    found = searched("product", True)
    shown = means(found)
    assert all(shown[name] > 0.99 for name in MODULES)
    assert shown["collages"] < 0.9
    assert (found.separation < 0.3).all()


def test_the_numbers_are_those_of_the_images() -> None:
    found, gen = searched("product", True), parts("product")
    assert found.images is not None
    assert found.nearest is not None
    assert found.faithfulness is not None
    assert found.distances is not None
    z1, z2 = (gen.sample(4, seed=0, stream=stream, start=32) for stream in (0, 1))
    base, source = gen(z1), gen(z2)
    hybrid = cp.Hybridizer(gen, "hidden").hybridize(z1, z2, units=MODULES["part 1"]).images[0]
    torch.testing.assert_close(found.images[3], hybrid.float())
    far = torch.stack([(one - hybrid).square().mean((1, 2, 3)) for one in (base, source)]).amin(0)
    missed = (found.nearest[3].double() - hybrid).square().mean((1, 2, 3))
    np.testing.assert_allclose(1 - missed / far, found.faithfulness[3], atol=1e-6)
    region = torch.from_numpy(found.regions)
    collages = torch.stack([torch.where(region[i % 3], source[i], base[i]) for i in range(4)])
    torch.testing.assert_close(found.images[-1], collages.float())
    rows = found.by_group()
    assert rows[1]["below_own"] == 0
    assert rows[2]["standard_error"] == pytest.approx(found.faithfulness[2].std(ddof=1) / 2)


def test_an_encoder_is_where_the_search_starts() -> None:
    gen, seen = parts("apart"), []

    def exact(images: Tensor) -> Tensor:
        """The latents themselves, since the toy's image is a linear function of what arctanh undoes."""
        seen.append(images)
        weight, bias = gen.module.drawn.weight, gen.module.drawn.bias
        hidden = torch.linalg.lstsq(weight, (images.flatten(1) - bias).T).solution.T.clamp(-1 + 1e-12, 1 - 1e-12)
        linear = gen.module.hidden[0]
        return torch.linalg.lstsq(linear.weight, (hidden.atanh() - linear.bias).T).solution.T.detach()

    with torch.no_grad():
        found = exchanged(gen, images=2, steps=1, encoder=exact)
    plain = exchanged(gen, images=2, steps=1)
    assert len(seen) == 2 + 3 + 1
    assert found.faithfulness is not None
    assert plain.faithfulness is not None
    assert (found.faithfulness[:2] > 0.999).all()
    assert (plain.faithfulness[:2] < 0.9).any()


@pytest.mark.parametrize(
    ("encoder", "sentence"),
    [
        (lambda images: torch.zeros(len(images), 7), r"gives latents of shape \(7,\) and apart parts takes \(6,\)"),
        (lambda images: torch.zeros(1, 6), "gives 1 latent for 2 images"),
        (lambda images: {"z": torch.zeros(len(images), 6)}, "the encoder does not fit: the latents of the encoder are"),
        (lambda _: None, "the encoder does not fit"),
    ],
)
def test_an_encoder_that_does_not_fit(encoder: Any, sentence: str) -> None:
    with pytest.raises(cp.ProbeError, match=sentence):
        exchanged(parts(), images=2, steps=1, encoder=encoder)


def test_without_images_nothing_is_searched() -> None:
    found = exchanged(parts())
    assert found.groups is None
    assert found.by_group() == []
    with pytest.raises(cp.ProbeError, match=r"no hybrids were searched .* exchange\(..., images=8\)"):
        found.plot_faithfulness()
    assert "faithfulness" not in str(found)
