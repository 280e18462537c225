"""Images as small as they are shown, since a sheet of large ones takes gigabytes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torch.nn.functional import avg_pool2d

_LARGEST = 256  # pixels of a side


def thumbnails(images: Tensor, largest: int = _LARGEST) -> npt.NDArray[np.floating[Any]]:
    """Images (…, C, H, W) as an array, averaged down by a whole factor to sides of at most about ``largest``."""
    plain = images.detach().float().cpu()
    factor = -(-max(plain.shape[-2:]) // largest)
    if factor == 1:
        return np.asarray(plain.numpy())
    small = avg_pool2d(plain.flatten(0, -4), factor, ceil_mode=True)
    return np.asarray(small.reshape(*plain.shape[:-2], *small.shape[-2:]).numpy())
