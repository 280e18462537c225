"""What a file of a figure shows, read from the figure itself."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

import counterfactual_probe as cp
from support.planted import Array


class SavedFigures:
    """All figures that were saved as PNG; called with a file, it gives the one whose picture the file holds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._saved: list[tuple[Figure, bytes]] = []
        save = Figure.savefig

        def savefig(figure: Figure, target: Any, *arguments: Any, **options: Any) -> None:
            save(figure, target, *arguments, **options)
            if options.get("format") != "svg":  # lines, which are no pixels
                self._saved.append((figure, target.getvalue() if isinstance(target, io.BytesIO) else read(target)))

        monkeypatch.setattr(Figure, "savefig", savefig)

    def __call__(self, path: Path | str) -> Figure:
        shown = pixels(read(path))
        assert len(np.unique(shown.reshape(-1, 3), axis=0)) > 2, f"{path} shows nothing"
        gaps = [
            np.abs(other - shown).mean() if other.shape == shown.shape else np.inf
            for other in (pixels(data) for _, data in self._saved)
        ]
        assert min(gaps, default=np.inf) < 2, f"{path} shows no figure that was saved"  # of 255: palettes round
        return self._saved[int(np.argmin(gaps))][0]


def not_drawn(figure: Figure, **_options: Any) -> tuple[bytes, str]:
    """In place of a picture, a digest of the arrays that it would show: drawing takes half of a small report's time."""
    digest = hashlib.sha256()
    for image in (image for ax in figure.axes for image in ax.images):
        digest.update(np.ascontiguousarray(image.get_array()).tobytes())
    return digest.hexdigest().encode(), ".png"


def read(path: Path | str) -> bytes:
    return Path(path).read_bytes()


def pixels(data: bytes) -> Array:
    """(H, W, 3), 0 to 255."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"), np.float64)


def row_names(ax: Axes) -> list[str]:
    return [label.get_text() for label in ax.get_yticklabels()]


def column_names(ax: Axes) -> list[str]:
    return [label.get_text() for label in ax.get_xticklabels()]


def legend_names(shown: Axes | Figure) -> list[str]:
    legend = shown.get_legend() if isinstance(shown, Axes) else shown.legends[0]
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def cells(ax: Axes, down: int, across: int, *, gap: int = 2, differ: bool = True) -> Array:
    """The pictures of a sheet, (down, across, H, W, 3), of which none is empty and, if they differ, no two the same."""
    (image,) = ax.images
    sheet = np.asarray(image.get_array(), np.float64)
    height, width = (sheet.shape[0] + gap) // down - gap, (sheet.shape[1] + gap) // across - gap
    assert sheet.shape[:2] == (down * (height + gap) - gap, across * (width + gap) - gap), (
        f"{sheet.shape} for {down}×{across}"
    )
    found = np.array(
        [
            [sheet[y : y + height, x : x + width] for x in range(0, sheet.shape[1], width + gap)]
            for y in range(0, sheet.shape[0], height + gap)
        ]
    )
    flat = found.reshape(down * across, -1)
    assert (flat.max(1) > flat.min(1)).all(), "a picture is of one colour"
    assert not differ or len(np.unique(flat, axis=0)) == down * across, "two pictures are the same"
    return found


def displayed(images: Tensor, image_range: tuple[float, float] = (-1.0, 1.0)) -> Array:
    """Images of three colours (…, C, H, W) as a figure shows them, (…, H, W, 3) in 0…1."""
    low, high = image_range
    shown: Array = ((images.double() - low) / (high - low)).clamp(0, 1).movedim(-3, -1).numpy()
    return shown


def assert_shows(figure: Figure, hybrids: cp.Hybrids) -> None:
    """A sheet of base, source and hybrids, a row each."""
    (ax,) = figure.axes
    assert hybrids.source is not None
    rows = torch.stack([hybrids.base, hybrids.source, *hybrids.images])
    found = cells(ax, *rows.shape[:2])
    np.testing.assert_allclose(found, displayed(rows, hybrids.provenance["image_range"]), atol=1e-6)
    assert row_names(ax)[:2] == ["base", "source"]
    assert len(row_names(ax)) == len(rows)
