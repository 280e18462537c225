"""Grids of images as PNG."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from torch import Tensor

from ...base.drawing import displayable, tile
from ...base.files import write_bytes

COLUMNS = 8
# Small images are shown larger, pixel by pixel.
_SIDE = 64


def save_grid(path: Path, rows: list[Tensor]) -> Path:
    """Rows of images (n, C, H, W) in −1…1, as one picture."""
    from PIL import Image

    cells = np.stack([displayable(np.nan_to_num(row.float().cpu().numpy()), (-1.0, 1.0)) for row in rows])
    scale = max(1, _SIDE // cells.shape[2])
    sheet = tile(cells.repeat(scale, axis=2).repeat(scale, axis=3))
    buffer = io.BytesIO()
    Image.fromarray((sheet * 255).round().astype(np.uint8)).save(buffer, format="PNG")
    return write_bytes(path, buffer.getvalue())
