"""Latents of given images, for generators that have an encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .adapter import GeneratorAdapter
from .images import require_images


def encoded(
    generator: GeneratorAdapter, images: Tensor, encode: Callable[[Tensor], Sequence[Tensor]]
) -> tuple[Tensor, ...]:
    """``encode`` of images (n, C, H, W) in batches that fit, each of its tensors concatenated."""
    require_images(images, generator.image_size, generator.image_range, generator.device)
    images = images.to(generator.dtype)
    with generator.session():
        parts = list(generator.batches(len(images), lambda index: encode(images[index])))
        with torch.inference_mode(False):  # ordinary tensors, as those of the generator's images
            return tuple(torch.cat(column) for column in zip(*parts, strict=True))
