"""Training images of one size, in memory or mapped from a file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..base.errors import ProbeError, visible
from ..base.formats.elsewhere import plain_tensor
from ..base.memory import free_memory
from ..generator.images import all_finite

NOT_STATED = "not stated"


@dataclass(frozen=True, repr=False)
class Images:
    """Images (n, C, H, W): bytes, or floats in −1…1.

    >>> import numpy as np
    >>> from counterfactual_probe.data import Images
    >>> Images(np.zeros((5, 3, 16, 16), np.uint8), "five black squares")
    Images(5 of 3×16×16, from five black squares)

    Attributes:
        source: where they come from, in words, for the model card.
        terms: the terms of use.
        generated: whether they are samples of a generator, and so not real images.
        notes: sentences about conversions that were made.
        unreadable: files that were left out, each with the reason.
        labels: (n,) the number of each image's class, or None where there are none.
        classes: their names, in the order of the numbers.
    """

    pixels: Tensor
    source: str = "an array"
    terms: str = NOT_STATED
    generated: bool = False
    notes: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    labels: Tensor | None = None
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "pixels", _checked_pixels(self.pixels))

    def __len__(self) -> int:
        return len(self.pixels)

    def __repr__(self) -> str:
        return visible(f"Images({len(self)} of {'×'.join(map(str, self.size))}, from {self.source})")

    @property
    def size(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        colours, height, width = self.pixels.shape[1:]
        return colours, height, width

    def floats(self, index: Tensor, device: torch.device | str = "cpu") -> Tensor:
        """The images with these numbers as floats in −1…1, on a device."""
        return to_floats(self.pixels[index].to(device))

    def placed(self, device: torch.device) -> Tensor:
        """The pixels in the GPU's memory if they need less than a quarter of what is free; otherwise as they are."""
        free = free_memory(device) if device.type == "cuda" else None
        return self.pixels.to(device) if free is not None and 4 * self.pixels.nbytes < free else self.pixels

    def fingerprint(self) -> str:
        """SHA-256 over type, shape and pixels."""
        digest = hashlib.sha256(f"{self.pixels.dtype} {tuple(self.pixels.shape)}\n".encode())
        digest.update(self.pixels.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()


def to_floats(pixels: Tensor) -> Tensor:
    """Bytes as floats in −1…1; floats unchanged."""
    return pixels if pixels.is_floating_point() else pixels.float().div_(127.5).sub_(1)


def to_bytes(images: Tensor, image_range: tuple[float, float]) -> Tensor:
    """Images with values in ``image_range`` as bytes, rounded to the nearest."""
    low, high = image_range
    return ((images - low) * (255 / (high - low))).round_().clamp_(0, 255).to(torch.uint8)


def _checked_pixels(given: Any) -> Tensor:
    if isinstance(given, (np.ndarray, Tensor)) and given.ndim == 4:
        given = plain_tensor(given, "the images")
    if not isinstance(given, Tensor) or given.dim() != 4 or given.shape[1] not in (1, 3):
        shape = f"{tuple(given.shape)}" if hasattr(given, "shape") else f"a {type(given).__name__}"
        raise ProbeError(f"the images are {shape}; give an array or tensor (n, C, H, W) with 1 or 3 colours")
    if len(given) == 0:
        raise ProbeError("there are 0 images; give at least one")
    if 0 in given.shape:
        raise ProbeError(f"the images are {tuple(given.shape)}; give images of at least 1×1")
    if given.dtype == torch.uint8:
        return given.cpu()
    if not given.is_floating_point():
        raise ProbeError(f"the images are {given.dtype}; give bytes (uint8), or floats from −1 to 1")
    floats: Tensor = given.detach().float().cpu()
    _require_range(floats)
    return floats


def _require_range(given: Tensor) -> None:
    if not all_finite(given):
        raise ProbeError("the images hold NaN or infinite values; give finite pixels")
    least, largest = float(given.min()), float(given.max())
    if least < -1.01 or largest > 1.01:
        raise ProbeError(f"the images range from {least:.3g} to {largest:.3g}; scale them to −1…1, or give bytes")
