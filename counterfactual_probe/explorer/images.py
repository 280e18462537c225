"""Pictures as text that a page shows: small ones, without a file."""

from __future__ import annotations

import base64
import io

import numpy as np
from torch import Tensor

from ..reporting.layer.thumbnails import thumbnails


def picture(image: Tensor, image_range: tuple[float, float], largest: int, *, lossless: bool) -> str:
    """An image (C, H, W) as an address of data, averaged down to sides of at most about ``largest``."""
    from PIL import Image

    low, high = image_range
    values = np.clip((thumbnails(image[None], largest)[0] - low) / (high - low), 0, 1)
    pixels = np.rint(255 * values).astype(np.uint8).transpose(1, 2, 0)
    made = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    buffer = io.BytesIO()
    made.save(buffer, "WEBP", lossless=lossless, quality=85, method=4)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
