"""Features of influence maps, by which channels are clustered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d, avg_pool2d, avg_pool3d

from ..base.errors import ProbeError, one_of, whole
from ..base.formats.elsewhere import plain_array
from ..influence.maps import InfluenceMaps
from .clustering import Array, Floats, unit_rows

Maps: TypeAlias = "InfluenceMaps | Tensor | npt.ArrayLike"
Kind: TypeAlias = Literal["bits", "l2", "pca"]

_FLAT_WITHIN = 4  # units in the last place
_PLATEAU = 1e-6  # of a map's range: pixels of equal influence differ by no more than the rounding of float32
_HALF = 2
_POOLS: dict[int, Callable[..., Tensor]] = {1: avg_pool1d, 2: avg_pool2d, 3: avg_pool3d}


@dataclass(frozen=True)
class MapFeatures:
    """How a map becomes a row of numbers.

    ``bits``: binarised maps, that is the papers' mean maps smoothed by a box mean and thresholded at a percentile of
    their values (S003 §3.4; conventions 8 and 9). ``l2``: maps in which every pair counts once, smoothed, averaged down
    2×2 and scaled to unit L2 norm; their modules are reproducible with fewer pairs. ``pca``: square roots of the energy
    shares of a channel's changes in the principal components of all changes, scaled to unit L2 norm: which channels
    have similar effects, wherever in the image.
    """

    kind: Kind = "bits"
    window: int | None = None
    percentile: float = 75.0

    def __post_init__(self) -> None:
        one_of(self.kind, "features", get_args(Kind))
        window, percentile = self.window, self.percentile
        if window is not None:
            window = whole(window, "window", 1)
            if window % 2 == 0:
                raise ProbeError(f"window is {window}; give an odd number of at least 1")
        if not isinstance(percentile, (int, float, np.integer, np.floating)) or not 0 <= percentile < 100:
            raise ProbeError(f"percentile is {percentile!r}; give a number of at least 0 and less than 100")
        object.__setattr__(self, "window", window)
        object.__setattr__(self, "percentile", float(percentile))

    def values(self, maps: Maps) -> Array:
        """The maps that features are computed from, as a float64 array (channels, H, W), checked."""
        own = isinstance(maps, InfluenceMaps)
        if self.kind == "l2" and isinstance(maps, InfluenceMaps):
            if maps.normalised is None:
                raise ProbeError(
                    "features='l2' needs pair-normalised maps, and these hold none; make them with "
                    "attribute(..., normalise='pair')"
                )
            maps = maps.normalised
        if self.kind == "pca":
            return np.asarray(_energy_of(maps)[:, None].double().numpy())
        return as_maps(maps, any_size=own)

    def blocks(self, maps: Maps) -> Tensor | None:
        """Sums over blocks of pairs of the same maps, (channels, blocks, H, W), if there are any.

        Of energies (channels, blocks, 1 + resamples, components): in the components of all pairs, then in those of
        resampled ones.
        """
        if not isinstance(maps, InfluenceMaps):
            return None
        if self.kind == "pca":
            if maps.energy_block_sums is None:
                return None
            leading, resampled = maps.energy_block_sums[:, :, None], maps.resampled_energy_block_sums
            return leading if resampled is None else torch.cat([leading, resampled], 2)
        return maps.normalised_block_sums if self.kind == "l2" else maps.block_sums

    def rows(self, values: Array) -> Array:
        """(channels, features); zeros for a map without structure."""
        if self.kind == "bits":
            return binary_features(values, self.window, self.percentile)
        if self.kind == "pca":
            return np.asarray(unit_rows(np.sqrt(values[:, 0])), np.float64)
        return unit_features(values, self.window)

    def resampled_rows(self, values: Array, resample: int) -> Array:
        """The same of a resample; energies are in the components of half of the pairs, since another sample has
        components of its own."""
        others = values.shape[1] - 1 if self.kind == "pca" else 0
        return self.rows(values[:, 1 + resample % others :] if others else values)

    def comparable(self, maps: Maps, other: Maps) -> bool:
        """Whether the features of two samples mean the same: energies in components of their own do not."""
        if self.kind != "pca":
            return True
        one, two = _components_of(maps), _components_of(other)
        return one.shape == two.shape and torch.equal(one, two)

    def images(self, rows: Floats, maps: Maps) -> Floats:
        """Rows of features as images of the maps' size, each with the norm of its row."""
        size = maps.maps.shape[1:] if isinstance(maps, InfluenceMaps) else np.shape(maps)[1:]
        if self.kind == "pca":
            # Where in the image the row's components have their energy.
            energy = _components_of(maps).double().square().mean(1).flatten(1).numpy()
            places = np.sqrt(np.square(rows) @ energy)
            norms = np.linalg.norm(rows, axis=1, keepdims=True)
            return np.asarray((unit_rows(places) * norms).reshape(len(rows), *size))
        if self.kind == "bits" or not _halves(*size):
            return rows.reshape(len(rows), *size)
        small = rows.reshape(len(rows), *(side // _HALF for side in size))
        for axis in range(1, len(size) + 1):
            small = small.repeat(_HALF, axis=axis)
        return np.asarray(small / _HALF ** (len(size) / 2))


def as_maps(maps: Maps, *, any_size: bool = False) -> Array:
    """Influence maps as a float64 array (channels, H, W), checked; those of sound and volumes have other dimensions."""
    if isinstance(maps, InfluenceMaps):
        maps, any_size = maps.maps, True
    values = plain_array(maps, "influence maps", "an array (channels, H, W)").astype(np.float64)
    if (values.ndim != 3 and not (any_size and 2 <= values.ndim <= 4)) or 0 in values.shape:
        raise ProbeError(f"influence maps have shape {values.shape}; give (channels, H, W)")
    if not np.isfinite(values).all():
        bad = int(np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(1))[0])
        raise ProbeError(f"influence map {bad} holds NaN or infinite values; make the maps again from finite images")
    return values


def default_window(*size: int) -> int:
    """The largest odd number up to 3 · (shorter side) / 64, at least 3 (conventions 8)."""
    largest = 3 * min(size) // 64
    return max(3, largest - 1 + largest % 2)


def binary_features(maps: Array, window: int | None = None, percentile: float = 75.0) -> Array:
    """(channels, pixels) of 0 and 1: where a smoothed map is :func:`above` a percentile of its values.

    A flat map has no ones. Whether it is flat is decided before smoothing, because box means at the border, over fewer
    pixels, round differently.
    """
    smooth = smoothed(maps, window).flatten(1).numpy()
    places = tuple(range(1, maps.ndim))
    largest, smallest = maps.max(places), maps.min(places)
    varies = largest - smallest > _FLAT_WITHIN * np.spacing(np.abs(largest))
    return np.asarray(above(smooth, percentile) & varies[:, None], dtype=np.float64)


def above(rows: Floats, percentile: float) -> npt.NDArray[np.bool_]:
    """(rows, pixels) where each row exceeds its percentile, strictly (conventions 9).

    Where a row's largest value covers more of it than the percentile leaves, nothing exceeds it: those pixels are
    above.
    """
    threshold = np.percentile(rows, percentile, axis=1, keepdims=True)
    largest, smallest = rows.max(1, keepdims=True), rows.min(1, keepdims=True)
    margin = _PLATEAU * (largest - smallest)
    return np.asarray(np.where(largest - threshold > margin, rows > threshold, rows >= threshold - margin))


def unit_features(maps: Array, window: int | None = None) -> Array:
    """(channels, pixels) of unit L2 norm: smoothed maps, averaged down 2×2 where that divides them."""
    small = smoothed(maps, window)
    if _halves(*maps.shape[1:]):
        small = _POOLS[small.dim() - 2](small, _HALF)
    return np.asarray(unit_rows(small.flatten(1).numpy()), np.float64)


def _energy_of(maps: Maps) -> Tensor:
    if not isinstance(maps, InfluenceMaps) or maps.energy is None:
        raise ProbeError(
            "features='pca' needs the principal components of what hybrids change, which these maps do not hold; make "
            "them with attribute(..., components=64)"
        )
    return maps.energy


def _components_of(maps: Maps) -> Tensor:
    _energy_of(maps)
    components = maps.components if isinstance(maps, InfluenceMaps) else None
    if components is None:
        raise ProbeError("the maps hold energies without their components; make them again with attribute(...)")
    return components


def _halves(*size: int) -> bool:
    return all(side % _HALF == 0 for side in size)


def smoothed(maps: Array, window: int | None) -> Tensor:
    """(channels, 1, H, W), or of the maps' dimensions, box means over the pixels inside the image (conventions 8)."""
    side = window or default_window(*maps.shape[1:])
    given = torch.from_numpy(maps)[:, None]
    return _POOLS[maps.ndim - 1](given, side, stride=1, padding=side // 2, count_include_pad=False)
