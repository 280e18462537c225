"""Differentiable augmentation against loops over pixels, and what it leaves alone."""

from __future__ import annotations

import pytest
import torch
from counterfactual_probe.adapters.augmentation import NUMBERS, augmented, cut_out, recoloured, translated
from torch import Tensor


@pytest.fixture
def images() -> Tensor:
    return torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1


def numbers(n: int, count: int = 2, seed: int = 1) -> Tensor:
    return torch.rand(n, count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


def test_colours_are_those_of_the_formulas(images: Tensor) -> None:
    """Zhao et al. 2020 (DiffAugment): brightness, then saturation, then contrast."""
    drawn = numbers(5, 3)
    found = recoloured(images, drawn)
    for i in range(5):
        u, s, c = ((float(value) + 1) / 2 for value in drawn[i])  # uniform in 0…1, as published
        x = images[i] + (u - 0.5)
        grey = sum(x[k] for k in range(3)) / 3
        x = torch.stack([(x[k] - grey) * (2 * s) + grey for k in range(3)])
        x = (x - x.mean()) * (c + 0.5) + x.mean()
        torch.testing.assert_close(found[i], x, rtol=1e-12, atol=1e-12)
    assert (found - images).abs().max() > 0.1


def test_translations_move_whole_pixels(images: Tensor) -> None:
    drawn = torch.tensor([[0, 0], [-1, -1], [1, 1], [0.5, -0.5], [0.2, 0.9]], dtype=torch.float64) * (1 - 1e-9)
    found = translated(images, drawn)
    for i, (down, right) in enumerate([(0, 0), (2, 2), (-2, -2), (-1, 1), (-1, -2)]):
        for y in range(16):
            for x in range(16):
                inside = 0 <= y - down < 16 and 0 <= x - right < 16
                wanted = images[i, :, y - down, x - right] if inside else torch.zeros(3, dtype=torch.float64)
                assert torch.equal(found[i, :, y, x], wanted), (i, y, x)


def test_a_square_is_cut_out(images: Tensor) -> None:
    drawn = torch.tensor([[0, 0], [-1, -1], [1, 1], [-1, 0.5], [0.2, 0.9]], dtype=torch.float64)
    found = cut_out(images, drawn)
    for i, (row, column) in enumerate([(8, 8), (0, 0), (15, 15), (0, 12), (9, 15)]):
        for y in range(16):
            for x in range(16):
                gone = row - 4 <= y < row + 4 and column - 4 <= x < column + 4
                assert torch.equal(found[i, :, y, x], images[i, :, y, x] * (not gone)), (i, y, x)


def test_all_shifts_are_as_likely() -> None:
    marked = torch.zeros(9000, 1, 16, 16)
    marked[:, :, 8, 8] = 1
    rows = translated(marked, numbers(9000))[:, 0].sum(2).argmax(1)
    counts = torch.bincount(rows, minlength=16)[6:11]
    assert int(counts.sum()) == 9000
    assert (counts - 1800).abs().max() < 200  # five standard deviations: 190


def test_gradients_pass_and_each_image_has_its_own_change(images: Tensor) -> None:
    x = images.clone().requires_grad_()
    drawn = numbers(5, NUMBERS)
    found = augmented(x, drawn)
    found.square().sum().backward()
    assert x.grad is not None
    assert bool((x.grad != 0).flatten(1).any(1).all())
    alone = torch.cat([augmented(images[i : i + 1], drawn[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(found.detach(), alone, rtol=1e-12, atol=1e-12)
    other = augmented(images, drawn.roll(1, 0))
    assert ((other - alone).abs().flatten(1).amax(1) > 0.01).all()
