"""Figures of a layer, which reports and the papers' study share: arrays and names in, captioned figures out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from ...base import drawing
from ...base.drawing import Floats
from ...modules import plots
from ...modules.clustering import NO_MODULE, Labels
from ..section import CaptionedFigure, shown
from .thumbnails import thumbnails

_CELL = 128  # pixels of an image in a sheet, at most about


def images_figure(
    name: str,
    *,
    rows: Sequence[Tensor],
    labels: Sequence[str],
    image_range: tuple[float, float],
    sentence: str,
    parameters: str,
) -> CaptionedFigure:
    """A sheet of rows of images (n, C, H, W), each with its label."""
    small = np.stack([thumbnails(row, _CELL) for row in rows])
    figure, _ = drawing.plot_images(small, labels, (image_range[0], image_range[1]))
    return shown(name, figure, sentence, parameters, photographs=True)


def mosaic_figure(
    name: str, *, maps: Floats, labels: Labels, influence: Floats, sentence: str, parameters: str
) -> CaptionedFigure:
    """Maps (channels, H, W) by module, the most influential first, each under its channel's number."""
    order = np.lexsort((-influence, np.where(labels < 0, len(labels), labels)))
    numbers = list(map(str, order.tolist()))
    figure, _ = drawing.plot_mosaic(maps[order], modules=labels[order].tolist(), labels=numbers)
    return shown(name, figure, sentence, parameters, photographs=True)  # hundreds of maps: half of the size of a PNG


def colour_key(labels: Labels, names: Sequence[str]) -> str:
    """Which colour stands for which module, of those that have channels."""
    key = {k: f"{drawing.module_colour_name(k)}: {name}" for k, name in enumerate(names)}
    key[NO_MODULE] = f"{drawing.module_colour_name(NO_MODULE)}: no module"
    return ", ".join(words for k, words in key.items() if (labels == k).any())


def confidence_figure(
    name: str,
    *,
    influence: Floats,
    confidence: Floats,
    labels: Labels,
    names: Sequence[str],
    sentence: str,
    parameters: str,
) -> CaptionedFigure:
    """Influence and confidence of every channel, as bars."""
    figure, _ = plots.plot_confidence(influence, confidence, labels.tolist(), names=names)
    words = (
        "Which channels to trust: each bar is a channel, blue if it stays in its module when pairs are resampled, "
        f"red if it does not. {sentence}"
    )
    return shown(name, figure, words, parameters, narrow=True)
