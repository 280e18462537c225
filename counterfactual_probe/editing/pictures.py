"""Pictures in files as images of a generator."""

from __future__ import annotations

import torch
from torch import Tensor

from ..data import open_images
from ..data.sources import Data
from ..generator.adapter import GeneratorAdapter
from ..generator.images import require_pictures
from ..inversion.invert import precision


def pictures_for(generator: GeneratorAdapter, data: Data, *, most: int, seed: int = 0) -> Tensor:
    """At most so many pictures, cropped and resized to the generator's size, in its colours and range.

    >>> pictures_for(gen, "photos", most=8)  # doctest: +SKIP

    ``data`` is what :func:`data.open_images` takes, such as a picture, a folder or a zip; ``seed`` is that of samples
    of a generator.
    """
    colours, height, _ = require_pictures(generator.image_size, "reading pictures")
    opened = open_images(data, size=height, colours=colours, images=most, seed=seed)
    return in_range(generator, opened.floats(torch.arange(len(opened))))


def in_range(generator: GeneratorAdapter, images: Tensor) -> Tensor:
    """Images in −1…1 as images in the generator's range, on its device."""
    low, high = generator.image_range
    scaled = (images + 1) / 2 * (high - low) + low
    return scaled.to(generator.device, precision(generator))
