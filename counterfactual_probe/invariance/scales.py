"""Images split into scales by orthogonal wavelets: components add up, and so do their energies (S000 §5.1.1)."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..base.errors import ProbeError, text, whole

Floats: TypeAlias = npt.NDArray[np.float64]

# Four halvings of 64×64 make five scales: [a4, d4, d3, d2, d1] (conventions 22).
DEFAULT_LEVELS = 4
_ORTHOGONAL_WITHIN = 1e-9  # of PyWavelets' tables, which have twelve digits or more


class Scales:
    """A wavelet transform for images of one size, from the coarsest scale to the finest.

    >>> scales = Scales((64, 64))
    >>> len(scales), scales.pixels
    (5, (16, 16, 8, 4, 2))

    Args:
        size: (H, W) of the images.
        levels: how often they are halved; by default 4 times, or as often as both sides allow. 0 is one scale, the
            image itself.
        wavelet: any orthogonal one of PyWavelets, such as "haar" or "db2"; borders are periodic, so that components
            stay orthogonal.
    """

    def __init__(self, size: tuple[int, int], levels: int | None = None, wavelet: str = "haar") -> None:
        self.wavelet = _orthogonal(wavelet)
        most = halvings(size, wavelet)
        if levels is None and most == 0:
            raise ProbeError(
                f"images of {size[0]}×{size[1]} cannot be halved by {wavelet!r} wavelets, not even once; give levels=0 "
                "for the error of the whole image alone"
            )
        self.levels = min(most, DEFAULT_LEVELS) if levels is None else whole(levels, "levels", 0)
        if self.levels > most:
            raise ProbeError(
                f"{self.levels} levels asked of images of {size[0]}×{size[1]}, which {wavelet!r} wavelets can halve "
                f"{most} times; give levels={most} or fewer"
            )

    def __len__(self) -> int:
        return self.levels + 1

    @property
    def pixels(self) -> tuple[int, ...]:
        """Side of the square of pixels that one coefficient covers, by scale; it is the same for the coarsest two."""
        return (2**self.levels, *(2**level for level in range(self.levels, 0, -1)))

    def energies(self, images: npt.ArrayLike) -> Floats:
        """(scales,) mean square of each component of images (…, H, W); they sum to the mean square of the images."""
        values = np.asarray(images, np.float64)
        sums = [sum(float((part**2).sum()) for part in parts) for parts in self._coefficients(values)]
        return np.array(sums) / values.size

    def components(self, images: npt.ArrayLike) -> Floats:
        """(scales, …, H, W) the images rebuilt from the coefficients of one scale each; they sum to the images."""
        import pywt

        coefficients = self._coefficients(np.asarray(images, np.float64))
        components = []
        for scale in range(len(self)):
            alone = [parts if i == scale else _zeros(parts) for i, parts in enumerate(coefficients)]
            # The coarsest scale is one array, every other one (horizontal, vertical, diagonal).
            components.append(pywt.waverec2([alone[0][0], *alone[1:]], self.wavelet, "periodization", axes=(-2, -1)))
        return np.stack(components)

    def _coefficients(self, values: Floats) -> list[tuple[Floats, ...]]:
        import pywt

        coarse, *details = pywt.wavedec2(values, self.wavelet, "periodization", self.levels, axes=(-2, -1))
        return [(coarse,), *details]


def _zeros(parts: tuple[Floats, ...]) -> tuple[Floats, ...]:
    return tuple(np.zeros_like(part) for part in parts)


def _orthogonal(name: str) -> Any:
    import pywt

    try:
        wavelet = pywt.Wavelet(text(name, "the wavelet"))
    except (ValueError, TypeError) as error:
        raise ProbeError(f"PyWavelets knows no wavelet {name!r}; give an orthogonal one, such as 'haar'") from error
    if not wavelet.orthogonal or _departure(wavelet) > _ORTHOGONAL_WITHIN:
        raise ProbeError(
            f"the wavelet {name!r} is not orthogonal, so errors of its scales do not add up; give one that is, such as "
            "'haar' or 'db2'"
        )
    return wavelet


def _departure(wavelet: Any) -> float:
    """How far the filter and its even shifts are from orthonormal: PyWavelets also calls its 'dmey', which is cut off,
    orthogonal, and is right to three digits."""
    taps = np.asarray(wavelet.dec_lo)
    products = np.correlate(taps, taps, "full")[len(taps) - 1 :: 2]
    products[0] -= 1
    return float(np.abs(products).max())


def halvings(size: tuple[int, int], wavelet: str = "haar") -> int:
    """How often both sides can be halved while the wavelet still fits into them."""
    import pywt

    count, (height, width) = 0, size
    while height % 2 == 0 and width % 2 == 0:
        count, height, width = count + 1, height // 2, width // 2
    return min(count, int(pywt.dwt_max_level(min(size), _orthogonal(wavelet).dec_len)))
