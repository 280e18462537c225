"""Which regions templates are compared with: those given, those that a segmentation finds, or the generator's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ..base.caller import blamed_on
from ..base.errors import ProbeError, brief
from ..generator.adapter import GeneratorAdapter
from .pretrained import available, pretrained
from .regions import Mask, Regions, generic_regions, given_regions

# Regions, masks (height, width) by name, or a module or function: images (n, C, H, W) -> labels (n, H, W), or scores
# (n, labels, H, W).
RegionsLike: TypeAlias = "Regions | Mapping[str, Any] | Callable[[Tensor], Any]"

_SAMPLES, _TOGETHER = 64, 8
_STREAM = 12  # of the latents whose images are segmented; those of maps and of hybrids that are shown have others
_RARE = 0.005  # labels that cover less of the images are left out


def regions_of(generator: GeneratorAdapter, given: RegionsLike | None = None) -> Regions:
    """The parts of the generator's images that its templates are compared with.

    >>> regions_of(gen, {"sky": mask})  # doctest: +SKIP
    >>> regions_of(gen, segmentation_network)  # doctest: +SKIP

    Without any, those of its registry entry; else centre, border and sides.
    """
    size = generator.image_size[1:]
    if given is None:
        return regions_of_name(generator.name, size)
    if isinstance(given, Regions):
        return Regions(given_regions(given.masks, size).masks, given.layer, given.expected, given.note)
    if isinstance(given, Mapping):
        return given_regions(given, size)
    if not callable(given):
        raise ProbeError(
            f"regions is {brief(given)}; give masks by name, or a module or function from images to a label map"
        )
    return _segmented(generator, given)


def regions_of_name(name: str, size: Sequence[int]) -> Regions:
    """The parts of images (height, width) of a generator of this name: those of its registry entry, if they fit."""
    entry = pretrained(name) if name in available() else None
    own = entry.regions() if entry is not None and entry.regions is not None else None
    return own if own is not None and own.size == tuple(size) else generic_regions(*size)


def _segmented(generator: GeneratorAdapter, segment: Callable[[Tensor], Any]) -> Regions:
    """How often each pixel has each label, over samples of the generator."""
    size, names = tuple(generator.image_size[1:]), _label_names(segment)
    counts: dict[int, Mask | Any] = {}
    latents_left = range(0, _SAMPLES, _TOGETHER)
    with torch.no_grad():
        for start in latents_left:
            images = generator(generator.sample(_TOGETHER, seed=0, stream=_STREAM, start=start))
            with blamed_on("regions", "let it take images (n, C, H, W) and return labels (n, H, W)"):
                labels = _labels(segment(images))
            if labels.shape != (_TOGETHER, *size):
                raise ProbeError(
                    f"regions returned labels of shape {labels.shape} for {_TOGETHER} images of {size}; return "
                    f"{(_TOGETHER, *size)}"
                )
            for label in np.unique(labels).tolist():
                counts[label] = counts.get(label, 0) + (labels == label).sum(0)
    masks = {
        names.get(label, f"part {label}"): np.asarray(count, np.float64) / _SAMPLES
        for label, count in sorted(counts.items())
    }
    kept = {name: mask for name, mask in masks.items() if mask.mean() >= _RARE}
    note = (
        "The parts of the image that templates are compared with are those that a given segmentation found: how often "
        f"each pixel had each label in {_SAMPLES} samples."
    )
    return Regions(kept, note=note)


def _labels(found: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Labels (n, H, W) of what a segmentation returned: labels, scores, or an object that holds either as others do."""
    if isinstance(found, Mapping) and "out" in found:  # torchvision's
        found = found["out"]
    found = getattr(found, "logits", found)  # of transformers
    values = found.detach() if isinstance(found, Tensor) else torch.as_tensor(np.asarray(found))
    if values.dim() == 4:
        values = values.argmax(1) if values.shape[1] > 1 else values[:, 0]
    return values.round().long().cpu().numpy()


def _label_names(segment: Any) -> dict[int, str]:
    """What its labels are called: its ``names``, or transformers' ``config.id2label``."""
    named = getattr(segment, "names", None) or getattr(getattr(segment, "config", None), "id2label", None) or {}
    items = named.items() if isinstance(named, Mapping) else enumerate(named)
    return {int(label): str(name) for label, name in items}
