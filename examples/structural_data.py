"""The data of S004's experiments (the scene, a labelled file, or pictures), split into three parts."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import ceil

import numpy as np
import numpy.typing as npt
from structural_models import CHUNK, Size
from torch import Tensor

from counterfactual_probe.base.errors import ProbeError
from counterfactual_probe.data import Images, Scene, open_images, read_labelled
from counterfactual_probe.data.labelled import SUFFIXES
from counterfactual_probe.data.scene import SCENE, TERMS

SPLIT = (0.7, 0.1, 0.2)  # training, validation and test images, S004 §3


@dataclass(frozen=True)
class Split:
    """Training images, and validation and test images, which are not used for training.

    Attributes:
        validation, test: bytes (n, 3, H, W).
        factors: (n, f) factors of the test images; None for pictures without labels.
        labels: factors of the training images.
    """

    train: Images
    validation: Tensor
    test: Tensor
    factors: npt.NDArray[np.int64] | None
    labels: npt.NDArray[np.int64] | None = field(repr=False)

    @cached_property
    def mark(self) -> str:
        """Identifies these images: their source, and a digest of some of them."""
        digest = hashlib.sha256(self.validation.numpy().data)
        digest.update(self.test.numpy().data)
        digest.update(self.train.pixels[:CHUNK].contiguous().numpy().data)
        return f"{self.train.source}, {digest.hexdigest()[:16]}"


def split_data(data: str, size: Size, *, seed: int = 0, show_progress: bool = True) -> Split:
    """``scene``, 3dshapes.h5, a file of MPI3D, or a folder or zip of pictures, such as CelebA's: 70 : 10 : 20."""
    if data == SCENE:
        return split_scene(size, seed=seed, show_progress=show_progress)
    factors: npt.NDArray[np.int64] | None = None
    if data.endswith(SUFFIXES):
        _require_side(data, 64, size)  # before gigabytes are read
        found = read_labelled(data, images=_wanted(size), seed=seed, show_progress=show_progress)
        images, factors = found.images, found.factors
    else:
        images = open_images(
            data, size=size.side, images=_wanted(size), skip_unreadable=True, show_progress=show_progress
        )
    if images.pixels.is_floating_point():
        raise ProbeError(f"the images of {data} are floats and must be bytes; give a folder or zip of pictures")
    _require_side(data, images.size[1], size)
    order = np.random.default_rng([seed, len(images)]).permutation(len(images))
    train, validation, test = _parts(order, size)
    if factors is not None:
        _require_rows(len(test), size)
    for note in images.notes:
        print(note, flush=True)
    given = dataclasses.replace(images, pixels=images.pixels[train], source=f"{len(train)} of {images.source}")
    known, labels = (None, None) if factors is None else (factors[test], factors[train])
    return Split(given, images.pixels[validation], images.pixels[test], known, labels)


def split_scene(size: Size, *, seed: int = 0, show_progress: bool = True) -> Split:
    """The scene in a random order, in three parts."""
    scene = Scene(size.side)
    train, validation, test = _parts(scene.sample(len(scene), seed=seed), size)
    _require_rows(len(test), size)
    pixels = scene.render(train, show_progress=show_progress)
    images = Images(pixels, f"{len(train)} renders of the procedural scene, of its training part (seed {seed})", TERMS)
    return Split(images, scene.render(validation), scene.render(test), test, train)


def _parts(order: npt.NDArray[np.int64], size: Size) -> Sequence[npt.NDArray[np.int64]]:
    """The three parts, each limited to the number of images in ``size``."""
    ends = np.cumsum([round(share * len(order)) for share in SPLIT])
    parts = np.split(order, ends[:-1])
    found = [part[:count] for part, count in zip(parts, _asked(size), strict=True)]
    if not all(map(len, found)):
        raise ProbeError(f"{len(order)} images leave a part of {SPLIT} empty; give at least ten")
    return found


def _require_side(data: str, side: int, size: Size) -> None:
    if side != size.side:
        raise ProbeError(
            f"the images of {data} are {side}×{side} and the models are for {size.side}×{size.side}; give --side {side}"
        )


def _require_rows(test: int, size: Size) -> None:
    if size.rows >= test:
        raise ProbeError(f"rows is {size.rows} and there are {test} test images; leave some to measure metrics on")


def _asked(size: Size) -> tuple[int | None, int | None, int | None]:
    return size.images, size.validation, size.test


def _wanted(size: Size) -> int | None:
    """The number of images to read, so that every part is large enough; None for all."""
    asked = [ceil(count / share) for count, share in zip(_asked(size), SPLIT, strict=True) if count is not None]
    return None if size.images is None else max(asked)
