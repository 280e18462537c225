"""Preprocessing against timm's own transform on pictures, and what must be true of it as plain torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from timm.data import create_transform, resolve_data_config
from torch import Tensor

import counterfactual_probe as cp
from counterfactual_probe.classifiers.self_check import photograph

# PIL rounds to 8 bits between its horizontal and its vertical pass and at the end, and torch does not.
ROUNDING = 1.6 / 255


def picture(height: int, width: int) -> Image.Image:
    return Image.fromarray(load_sample_image("china.jpg")).crop((100, 60, 100 + width, 60 + height))


def as_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None].float() / 255


CONFIGS = [
    {},
    {"crop_pct": 0.95, "mean": (0.5,) * 3, "std": (0.5,) * 3},
    {"input_size": (3, 299, 299), "crop_pct": 0.8975},
    {"interpolation": "bilinear", "crop_pct": 1.0},
    {"crop_mode": "squash"},
    {"crop_mode": "border", "crop_pct": 0.9},
    {"input_size": (3, 96, 160), "crop_pct": 0.9},
    {"input_size": (3, 32, 32)},
]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize("size", [(128, 128), (300, 211), (97, 310)], ids=str)
def test_as_timm_does_it(config: dict[str, Any], size: tuple[int, int]) -> None:
    data = resolve_data_config(config, pretrained_cfg={"crop_pct": 0.875})
    theirs = create_transform(**data)(picture(*size))[None]
    own = cp.Preprocessing.of_timm(data)
    ours = own(as_tensor(picture(*size)))
    assert ours.shape == theirs.shape
    largest = ((ours - theirs).abs() * torch.tensor(own.std)[:, None, None]).max()
    assert largest < ROUNDING
    # Negative controls: without antialiasing, and cropped a pixel aside, the difference would be seen.
    assert ((ours.roll(1, -1) - theirs).abs() * torch.tensor(own.std)[:, None, None]).max() > 5 * ROUNDING


def test_antialiasing_matters_here() -> None:
    image = as_tensor(picture(300, 300))
    plain = torch.nn.functional.interpolate(image, (32, 32), mode="bicubic", align_corners=False).clamp(0, 1)
    assert (cp.Preprocessing((32, 32)).resized(image) - plain).abs().max() > 0.1


def test_batched_and_differentiable() -> None:
    rng = torch.Generator().manual_seed(0)
    images = torch.rand(3, 3, 20, 20, generator=rng, dtype=torch.float64)
    own = cp.Preprocessing((14, 14), crop=0.9)
    together = own(images)
    assert torch.equal(together, torch.cat([own(image[None]) for image in images]))
    inside = (images * 0.5 + 0.25).requires_grad_()  # away from where values are cut off
    assert torch.autograd.gradcheck(own, inside[:1, :, :8, :8].detach().requires_grad_())
    own(inside).sum().backward()
    assert inside.grad is not None
    assert inside.grad.abs().sum() > 0


def test_nothing_is_resized_that_has_the_size() -> None:
    image = torch.rand(1, 3, 8, 8)
    assert torch.equal(cp.Preprocessing((8, 8)).resized(image), image)


def test_grey_images_are_repeated_and_colours_are_not_dropped() -> None:
    grey = torch.rand(2, 1, 8, 8)
    found = cp.Preprocessing((8, 8), mean=(0.0,) * 3, std=(1.0,) * 3)(grey)
    assert torch.equal(found, grey.expand(-1, 3, -1, -1))
    with pytest.raises(cp.ProbeError, match="images have 3 colours and the classifier takes 1"):
        cp.Preprocessing((8, 8), mean=(0.0,), std=(1.0,))(torch.rand(1, 3, 8, 8))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (0, 8)}, r"input size is \(0, 8\); give \(height, width\) of at least 1"),
        ({"crop": 1.5}, r"the share of the side to keep, crop, is 1\.5; give a number above 0, up to 1"),
        ({"mode": "middle"}, "mode is 'middle'; give one of 'center', 'squash', 'border'"),
        ({"interpolation": "lanczos"}, "interpolation is 'lanczos'; give one of 'bicubic'"),
        ({"std": (0.1, 0.0, 1.0)}, r"std \(0\.1, 0\.0, 1\.0\); give one of each per colour"),
        ({"mean": (0.1,)}, r"mean is \(0\.1,\) and std"),
    ],
)
def test_what_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(cp.ProbeError, match=message):
        cp.Preprocessing(**{"size": (8, 8), **options})


def test_a_configuration_that_is_not_timms() -> None:
    with pytest.raises(cp.ProbeError, match=r"is not timm's .KeyError: 'input_size'.; give what timm.data.resolve"):
        cp.Preprocessing.of_timm({"mean": (0, 0, 0)})


def test_the_photograph_is_the_file() -> None:
    assert photograph().shape == (1, 3, 427, 640)
    assert torch.equal(
        (photograph() * 255).round().to(torch.uint8)[0, :, 5, 7],
        torch.from_numpy(load_sample_image("china.jpg")[5, 7].copy()),
    )
