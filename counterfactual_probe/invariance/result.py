"""The result of a stretch test: errors of each image, and what follows from them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..generator.results import Result
from .scales import Scales

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False, repr=False)
class Invariance(Result):
    """How far images of a transformed layer are from transformed images. On the CPU.

    Attributes:
        image_mse: (n,) float64, mean square over pixels and colours of what is between the two, of each image.
        image_mse_per_scale: (n, scales) float64, the same of its components, from coarse to fine.
        image_change_per_scale: (n, scales) float64, of what is between the image and the transformed image: the error
            of a layer that takes no notice of the transformation.
        images: (kept, C, H, W), of the generator with the layer's maps transformed.
        base: (kept, C, H, W), without intervention.
        transformed: (kept, C, H, W), ``base`` transformed.
        provenance: generator, weights, layer, transformation, wavelet, levels, seed, range, versions.
    """

    image_mse: Tensor
    image_mse_per_scale: Tensor
    image_change_per_scale: Tensor
    images: Tensor
    base: Tensor
    transformed: Tensor
    provenance: dict[str, Any]

    def __len__(self) -> int:
        return len(self.image_mse)

    def __repr__(self) -> str:
        about = self.provenance
        scales = ", ".join(f"{value:.3g}" for value in self.mse_per_scale.tolist())
        return (
            f"Invariance({about['generator']}, layer {self.layer}, {about['transformation']}: MSE {self.mse:.3g} ± "
            f"{self.standard_error:.2g} over {len(self)} images, per scale [{scales}], {self.relative_mse:.2f} of a "
            "layer that takes no notice)"
        )

    @property
    def layer(self) -> str:
        return str(self.provenance["layers"][0])

    @property
    def scales(self) -> Scales:
        """The wavelet transform that was used."""
        height, width = self.images.shape[-2:]
        return Scales((height, width), self.provenance["levels"], self.provenance["wavelet"])

    @property
    def mse(self) -> Tensor:
        """() mean over images, in units of the image's range, squared."""
        return self.image_mse.mean()

    @property
    def standard_error(self) -> Tensor:
        """() of ``mse``; NaN of a single image."""
        return _standard_error(self.image_mse)

    @property
    def mse_per_scale(self) -> Tensor:
        """(scales,) from coarse to fine; the sum is ``mse``."""
        return self.image_mse_per_scale.mean(0)

    @property
    def standard_error_per_scale(self) -> Tensor:
        """(scales,) of ``mse_per_scale``."""
        return _standard_error(self.image_mse_per_scale)

    @property
    def relative_mse(self) -> Tensor:
        """() ``mse`` over that of a layer that takes no notice: 0 is invariant, 1 is as if nothing had been done."""
        return self.mse / self.image_change_per_scale.sum(1).mean()

    @property
    def relative_mse_per_scale(self) -> Tensor:
        """(scales,) the same of every scale."""
        return self.mse_per_scale / self.image_change_per_scale.mean(0)

    @property
    def relative_standard_error_per_scale(self) -> Tensor:
        """(scales,) of ``relative_mse_per_scale``, to first order: both means are over the same images."""
        residuals = self.image_mse_per_scale - self.relative_mse_per_scale * self.image_change_per_scale
        return _standard_error(residuals) / self.image_change_per_scale.mean(0)

    def plot(self, ax: Axes | None = None) -> tuple[Figure, Axes]:
        """MSE per scale with ± one standard error (S000 Fig. 3c)."""
        from .plots import plot_mse_per_scale

        return plot_mse_per_scale([self], ax=ax)

    def plot_images(self, ax: Axes | None = None, *, most: int = 8) -> tuple[Figure, Axes]:
        """Images, those of the transformed layer, and the transformed images (S000 Fig. 3a)."""
        from .plots import plot_transformed

        return plot_transformed([self], ax=ax, most=most)

    def plot_scales(self, ax: Axes | None = None, *, image: int = 0) -> tuple[Figure, Axes]:
        """One image apart into scales, and what is between it and the transformed image in each (S000 Fig. 3c)."""
        from .plots import plot_components

        return plot_components([self], ax=ax, image=image)


def _standard_error(values: Tensor) -> Tensor:
    """Of the mean over the first dimension."""
    if len(values) < 2:
        return torch.full_like(values[0], torch.nan)
    spread: Tensor = values.std(0)
    return spread / math.sqrt(len(values))
