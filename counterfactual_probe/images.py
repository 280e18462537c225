"""Images: where they are in what a module returns, and whether their values are numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from .errors import ProbeError

_IMAGE_KEYS = ("sample", "images", "image", "x", "out", "output")


def all_finite(images: Tensor) -> bool:
    """Whether there is no NaN and no infinity, in one pass: either would make the sum so."""
    # A sum in the images' own type is ten times as fast, and overflows where no image is wrong.
    return bool(torch.isfinite(images.sum())) or bool(torch.isfinite(images.sum(dtype=torch.float64)))


def require_finite(images: Tensor, where: Callable[[int], str], dtype: torch.dtype | None) -> None:
    """Raise a ProbeError that says which image of a generator of this type holds a NaN or an infinity."""
    if all_finite(images):
        return
    first = int((~torch.isfinite(images).flatten(1).all(1)).nonzero()[0, 0])
    raise ProbeError(
        f"the image {where(first)} holds NaN or infinite values; check the latents' range and the weights"
        + (", or run the generator in float32" if dtype in (torch.float16, torch.bfloat16) else "")
    )


def default_image(output: Any) -> Tensor:
    """The image tensor of a module's output, for the forms that generators commonly return."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        found = [output[key] for key in _IMAGE_KEYS if key in output] or list(output.values())
    elif isinstance(output, (tuple, list)):
        found = list(output)
    else:
        found = [getattr(output, key) for key in _IMAGE_KEYS if hasattr(output, key)]
    for candidate in found:
        if isinstance(candidate, Tensor) and candidate.dim() == 4:
            return candidate
    raise ProbeError(
        f"no 4-D image tensor was found in the module's output, a {type(output).__name__}; pass image=..., "
        "a function from that output to a tensor (n, C, H, W)"
    )
