"""What the models of S004 are trained and tested on: the scene, a labelled file, or pictures, in three parts."""

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
    """Training images, and others for validation and for tests, which no training sees.

    Attributes:
        validation, test: bytes (n, 3, H, W).
        factors: of the test images (n, f); None of pictures, which nobody has labelled.
        labels: the same of the training images.
    """

    train: Images
    validation: Tensor
    test: Tensor
    factors: npt.NDArray[np.int64] | None
    labels: npt.NDArray[np.int64] | None = field(repr=False)

    @cached_property
    def mark(self) -> str:
        """What tells these images from others: where they are from, and a digest of what no training sees."""
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
        raise ProbeError(f"the images of {data} are floats and bytes are wanted; give a folder or zip of pictures")
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
    """The scene in an order that the seed decides, in three parts."""
    scene = Scene(size.side)
    train, validation, test = _parts(scene.sample(len(scene), seed=seed), size)
    _require_rows(len(test), size)
    pixels = scene.render(train, show_progress=show_progress)
    images = Images(pixels, f"{len(train)} renders of the procedural scene, of its training part (seed {seed})", TERMS)
    return Split(images, scene.render(validation), scene.render(test), test, train)


def _parts(order: npt.NDArray[np.int64], size: Size) -> Sequence[npt.NDArray[np.int64]]:
    """The three parts of all, and of each as many as are asked for."""
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
        raise ProbeError(f"{size.rows} of {test} test images are to fit metrics on; leave some to measure on")


def _asked(size: Size) -> tuple[int | None, int | None, int | None]:
    return size.images, size.validation, size.test


def _wanted(size: Size) -> int | None:
    """How many images to read, so that every part has as many as are asked for; None for all."""
    asked = [ceil(count / share) for count, share in zip(_asked(size), SPLIT, strict=True) if count is not None]
    return None if size.images is None else max(asked)
