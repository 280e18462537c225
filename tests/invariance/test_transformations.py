"""Transformations of maps: against torch's own, in every size, and what they refuse."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import counterfactual_probe as cp
from counterfactual_probe.invariance.transformations import Transformation, flip, parse, rotation, shift, stretch
from support.twins import literal_stretch


def random_maps(height: int, width: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(5), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("width", [4, 8, 16, 64])
def test_the_stretch_is_interpolation_and_a_symmetric_crop(width: int) -> None:
    maps = random_maps(6, width)
    found = stretch()(maps)
    torch.testing.assert_close(found, literal_stretch(maps), rtol=0, atol=1e-12)
    corners = F.interpolate(maps, (6, width * 3 // 2), mode="bilinear", align_corners=True)
    cut = width // 4
    assert not torch.allclose(found, corners[..., cut : cut + width]), "align_corners matters"
    torch.testing.assert_close(stretch(1.5, "vertical")(maps.mT).mT, found, rtol=0, atol=0)


@pytest.mark.parametrize("width", [1, 2, 3, 5, 7])
def test_a_stretch_of_any_width_is_symmetric(width: int) -> None:
    maps = random_maps(4, width)
    torch.testing.assert_close(stretch()(maps).flip(-1), stretch()(maps.flip(-1)), rtol=0, atol=1e-12)
    line = torch.arange(width, dtype=torch.float64).expand(1, 1, width)
    assert (stretch(0.5)(line)[0, 0, [0, -1]] == line[0, 0, [0, -1]]).all(), "beyond the edge, the edge goes on"


def test_flips_turns_and_whole_shifts_are_exact() -> None:
    maps = random_maps(8, 8, torch.float32)
    assert torch.equal(flip()(maps), maps.flip(-1))
    assert torch.equal(flip("vertical")(maps), maps.flip(-2))
    for quarter in (1, 2, 3):
        assert torch.equal(rotation(90 * quarter)(maps), torch.rot90(maps, quarter, (-2, -1)))
    moved = shift(0.25, -0.125)(maps)
    assert torch.equal(moved[..., :7, 2:], maps[..., 1:, :6])
    assert torch.equal(moved[..., :7, 0], maps[..., 1:, 0]), "what comes in is the edge"
    assert torch.equal(Transformation("nothing", ((1.0, 0.0), (0.0, 1.0)))(maps), maps)
    assert not torch.equal(rotation(10)(maps), maps)


def test_shares_of_the_size_are_the_same_in_layers_and_images() -> None:
    image = F.interpolate(random_maps(4, 4), scale_factor=4)
    moved = shift(0.25)(random_maps(4, 4))
    torch.testing.assert_close(shift(0.25)(image), F.interpolate(moved, scale_factor=4), rtol=0, atol=1e-12)
    assert not torch.allclose(shift(0.2)(image), F.interpolate(moved, scale_factor=4))


def test_half_precision_keeps_its_type() -> None:
    maps = random_maps(4, 8, torch.bfloat16)
    found = stretch()(maps)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, stretch()(maps.float()).bfloat16()), "rounded once, at the end"
    torch.testing.assert_close(found, literal_stretch(maps.float()).bfloat16(), rtol=0.01, atol=0.01)


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("stretch", stretch()),
        ("stretch:2", stretch(2)),
        ("shift:0.5", shift(0.5)),
        ("shift:0.5,-0.25", shift(0.5, -0.25)),
        ("flip:vertical", flip("vertical")),
        ("rotation:15", rotation(15)),
    ],
)
def test_the_command_lines_words(text: str, made: Transformation) -> None:
    assert parse(text) == made


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: stretch(0), "the factor of a stretch is 0; give a positive number"),
        (lambda: stretch(1.5, "sideways"), "the axis is 'sideways'; give 'horizontal' or 'vertical'"),
        (lambda: flip("x"), "the axis is 'x'"),
        (lambda: shift(1.0), "a shift by 1.0 and 0.0 of the size leaves no image; give shares below 1"),
        (lambda: rotation(float("nan")), "a rotation by nan degrees has no meaning"),
        (lambda: parse("twist:3"), "the transformation is 'twist:3'; give stretch, shift, flip or rotation"),
        (lambda: parse("stretch:a"), "the transformation is 'stretch:a'"),
        (lambda: parse("shift:0.1,0.2,0.3"), "the transformation is 'shift:0.1,0.2,0.3'"),
    ],
)
def test_mistakes_are_sentences(make: object, sentence: str) -> None:
    assert callable(make)
    with pytest.raises(cp.ProbeError, match=sentence):
        make()
