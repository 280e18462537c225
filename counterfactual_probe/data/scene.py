"""A rendered room: an object on a floor in front of walls, with the six factors of 3D-Shapes.

An image is linear in its three colours: only the 480 geometries are traced, and all 480 000 images are products of
these with colours.
"""

from __future__ import annotations

import colorsys
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..base.errors import ProbeError, whole
from ..base.progress import progress_bar
from ..generator.latents import stream_seed
from .geometry import SHAPES, see
from .images import Images

SCENE = "scene"  # its name as training data
DRAWN = 12  # random stream
SIZES = {"floor hue": 10, "wall hue": 10, "object hue": 10, "scale": 8, "shape": len(SHAPES), "orientation": 15}
SCALES = np.linspace(0.75, 1.25, SIZES["scale"])
ANGLES = np.linspace(-30.0, 30.0, SIZES["orientation"])
PARTS = ("floor", "wall", "object")
TERMS = "none: rendered by counterfactual-probe"
_SATURATION, _VALUE = 0.85, 0.95
_CHUNK = 64
_HUES = 3  # the first factors


class Scene:
    """All 480 000 images of the room, rendered on request, with their factors and parts.

    >>> from counterfactual_probe.data import Scene
    >>> scene = Scene(size=32)
    >>> labels = scene.sample(2, seed=0)  # rows of floor hue, wall hue, object hue, scale, shape, orientation
    >>> scene.render(labels).shape, scene.masks(labels).shape
    (torch.Size([2, 3, 32, 32]), torch.Size([2, 3, 32, 32]))

    Hues, scales (0.75 to 1.25), shapes (cube, cylinder, sphere, capsule) and angles (−30° to 30°) are those of
    3D-Shapes. The images are not, so scores on the scene cannot be compared with scores on 3D-Shapes.

    Args:
        size: side of the images.
    """

    def __init__(self, size: int = 64) -> None:
        self.size = whole(size, "size", 4)
        self._light = torch.zeros(self.geometries, 4, self.size**2)
        self._part = torch.zeros(self.geometries, self.size**2, dtype=torch.uint8)
        self._seen = torch.zeros(self.geometries, dtype=torch.bool)
        self._colours = torch.tensor(
            [colorsys.hsv_to_rgb(hue / SIZES["floor hue"], _SATURATION, _VALUE) for hue in range(SIZES["floor hue"])]
        )

    def __len__(self) -> int:
        return int(np.prod(list(SIZES.values())))

    def __repr__(self) -> str:
        return f"Scene({len(self)} of 3×{self.size}×{self.size}; {', '.join(f'{n} {k}' for k, n in SIZES.items())})"

    @property
    def geometries(self) -> int:
        """The number of combinations of scale, shape and orientation."""
        return int(np.prod(list(SIZES.values())[_HUES:]))

    def labels(self, numbers: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Factors (n, 6) of images given by number, in the order of 3D-Shapes: the last factor changes fastest."""
        given = np.asarray(numbers)
        if (
            given.dtype.kind not in "iu"
            or given.ndim != 1
            or (given.size and not 0 <= given.min() <= given.max() < len(self))
        ):
            raise ProbeError(f"the images' numbers are {_range_of(given)}; give integers from 0 to {len(self) - 1}")
        return np.stack(np.unravel_index(given, tuple(SIZES.values())), axis=1).astype(np.int64)

    def sample(self, n: int, *, seed: int = 0) -> npt.NDArray[np.int64]:
        """Factors (n, 6) of n different images, chosen uniformly; a smaller n gives the first rows of a larger n."""
        if not whole(n, "the number of images", 1) <= len(self):
            raise ProbeError(f"{n} images are more than the scene's {len(self)}; give a smaller number")
        order = np.random.default_rng(stream_seed(seed, DRAWN, 0)).permutation(len(self))
        return self.labels(order[:n])

    def render(self, labels: npt.ArrayLike | Tensor, *, show_progress: bool = False) -> Tensor:
        """Images (n, 3, size, size) as bytes."""
        rows = _checked_factors(labels)
        geometry = self._trace(rows, show_progress)
        colours = torch.cat([self._colours[rows[:, :_HUES]], torch.ones(len(rows), 1, 3)], 1).mT * 255
        images = torch.empty(len(rows), 3, self.size, self.size, dtype=torch.uint8)
        for start in range(0, len(rows), _CHUNK):
            part = slice(start, start + _CHUNK)
            made = torch.bmm(colours[part], self._light[geometry[part]]).add_(0.5).clamp_(0, 255.5)
            images[part] = made.reshape(-1, *images.shape[1:])  # conversion to bytes truncates
        return images

    def masks(self, labels: npt.ArrayLike | Tensor) -> Tensor:
        """Masks of floor, wall and object, (n, 3, size, size): each pixel is of the part that covers most of it."""
        rows = _checked_factors(labels)
        part: Tensor = self._part[self._trace(rows, False)]
        return torch.stack([part == k for k in range(len(PARTS))], 1).reshape(-1, len(PARTS), self.size, self.size)

    def images(self, n: int, *, seed: int = 0, show_progress: bool = False) -> Images:
        """The images of :meth:`sample` as training data."""
        pixels = self.render(self.sample(n, seed=seed), show_progress=show_progress)
        return Images(pixels, f"{n} renders of the procedural scene (seed {seed})", TERMS)

    def _trace(self, rows: Tensor, show_progress: bool) -> Tensor:
        """The number of each row's geometry; geometries that are new are traced."""
        scale, shape, angle = rows[:, _HUES:].T
        geometry: Tensor = (scale * SIZES["shape"] + shape) * SIZES["orientation"] + angle
        wanted = torch.from_numpy(np.unique(geometry.numpy()))
        new = wanted[~self._seen[wanted]].tolist()
        with progress_bar(len(new), "tracing rays", "geometry", show_progress) as bar:
            for number in new:
                rest, turned = divmod(number, SIZES["orientation"])
                scaled, shaped = divmod(rest, SIZES["shape"])
                traced = see(shaped, float(SCALES[scaled]), float(ANGLES[turned]), self.size)
                self._light[number], self._part[number] = torch.from_numpy(traced.light), torch.from_numpy(traced.part)
                self._seen[number] = True
                bar.update()
        return geometry


def _checked_factors(labels: Any) -> Tensor:
    rows: Tensor = torch.as_tensor(labels)
    if rows.dim() != 2 or rows.shape[1] != len(SIZES) or rows.is_floating_point():
        given = f"{rows.dtype} {tuple(rows.shape)}"
        raise ProbeError(f"the factors are {given}; give integers (n, {len(SIZES)}): {', '.join(SIZES)}")
    for j, (name, count) in enumerate(SIZES.items()):
        column = rows[:, j]
        if len(column) and not 0 <= int(column.min()) <= int(column.max()) < count:
            given = f"{int(column.min())} to {int(column.max())}"
            raise ProbeError(f"{name} is {given} in the factors given; give 0 to {count - 1}")
    return rows.long()


def _range_of(given: npt.NDArray[Any]) -> str:
    if given.dtype.kind not in "iu" or given.ndim != 1:
        return f"{given.dtype} {given.shape}"
    return f"{given.min()} to {given.max()}"
