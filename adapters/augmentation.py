"""Differentiable augmentation of a GAN's images (Zhao et al. 2020): colour, translation and cutout.

Discriminators see real and made images through the same random changes, so that few images are not learnt by heart,
and gradients pass through them to the generator, whose own images stay unchanged.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

NUMBERS = 7  # random numbers of one image: three for colour, two for translation and two for cutout
SHIFT = 1 / 8  # the furthest translation, as a share of the image's side
CUT = 1 / 2  # the side of the square that is cut out, as a share of the image's


def augmented(images: Tensor, numbers: Tensor) -> Tensor:
    """Images (n, C, H, W) changed as their numbers (n, 7), uniform in −1…1, say.

    >>> import torch
    >>> from counterfactual_probe.adapters.augmentation import NUMBERS, augmented
    >>> augmented(torch.ones(2, 3, 8, 8), torch.zeros(2, NUMBERS))[0, 0, 0]  # nothing moved; the centre is cut out
    tensor([1., 1., 1., 1., 1., 1., 1., 1.])
    """
    return cut_out(translated(recoloured(images, numbers[:, :3]), numbers[:, 3:5]), numbers[:, 5:7])


def recoloured(images: Tensor, numbers: Tensor) -> Tensor:
    """Brightness moved by up to 1/2, saturation multiplied by 0 to 2 and contrast by 1/2 to 3/2."""
    brightness, saturation, contrast = numbers[:, :, None, None, None].unbind(1)
    images = images + brightness / 2
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * (saturation + 1)
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + (images - mean) * (contrast / 2 + 1)


def translated(images: Tensor, numbers: Tensor) -> Tensor:
    """Images moved by whole pixels, up to an eighth of the side, with 0 where nothing is left."""
    side = images.shape[-1]
    furthest = round(side * SHIFT)
    rows, columns = _places(numbers, 2 * furthest + 1)
    place = torch.arange(side, device=images.device)
    padded = F.pad(images, (furthest,) * 4).permute(0, 2, 3, 1)
    each = torch.arange(len(images), device=images.device)[:, None, None]
    return padded[each, (rows[:, None] + place)[:, :, None], (columns[:, None] + place)[:, None]].permute(0, 3, 1, 2)


def cut_out(images: Tensor, numbers: Tensor) -> Tensor:
    """Images with a square of half the side set to 0, its centre anywhere in the image."""
    side = images.shape[-1]
    half = round(side * CUT) // 2
    place = torch.arange(side, device=images.device)
    inside = [
        (place - centre[:, None] + half).div(2 * half, rounding_mode="floor") == 0 for centre in _places(numbers, side)
    ]
    kept = ~(inside[0][:, :, None] & inside[1][:, None])
    return images * kept[:, None]


def _places(numbers: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Numbers (n, 2) in −1…1 as whole numbers from 0 to count − 1, each as likely."""
    places = ((numbers.float() + 1) * (count / 2)).long().clamp(max=count - 1)
    return places[:, 0], places[:, 1]
