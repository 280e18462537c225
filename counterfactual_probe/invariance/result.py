"""The result of a stretch test: errors of each image, and the means and scales computed from them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import torch
from msgspec import Meta
from torch import Tensor

from ..base.display.description import Description, Picture, Table
from ..base.display.plot import Plot
from ..base.display.text import counted, plus_minus
from ..base.drawing import Floats
from ..base.errors import ProbeError
from ..base.formats.provenance import ImagesProvenance, Provenance
from ..base.formats.types import Name, Text
from ..generator.results import Result
from .scales import Scales

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class InvarianceProvenance(ImagesProvenance, kw_only=True):
    """What a stretch test records."""

    generator: Text
    layers: Annotated[list[Name], Meta(min_length=1)]
    transformation: Text
    wavelet: Name
    levels: Annotated[int, Meta(ge=0, le=16)]


@dataclass(frozen=True, eq=False, repr=False)
class Invariance(Result):
    """How far images of a transformed layer are from transformed images. On the CPU.

    Attributes:
        image_mse: (n,) float64, mean square of their difference over pixels and colours, for each image.
        image_mse_per_scale: (n, scales) float64, the same of its components, from coarse to fine.
        image_change_per_scale: (n, scales) float64, the same between the image and the transformed image: the error of
            a layer that ignores the transformation.
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

    SHAPES: ClassVar[Mapping[str, str]] = {
        "image_mse": "float n",
        "image_mse_per_scale": "float n scales",
        "image_change_per_scale": "float n scales",
        "images": "float kept C H W",
        "base": "float kept C H W",
        "transformed": "float kept C H W",
    }
    PROVENANCE: ClassVar[type[Provenance]] = InvarianceProvenance

    def __len__(self) -> int:
        return len(self.image_mse)

    def _contradiction(self) -> str | None:
        try:
            expected = len(self.scales)
        except ProbeError as error:
            return str(error)
        if (scales := self.image_mse_per_scale.shape[1]) != expected:
            return f"it has errors of {scales} scales and its provenance {expected - 1} levels, which are {expected}"
        return super()._contradiction()

    def describe(self) -> Description:
        """The error, absolute and relative to a layer that ignores the transformation, of the image and each scale."""
        about = self.provenance
        head = ("scale", "MSE", "relative")
        rows = tuple(
            (name, plus_minus(record["mse"], record["standard_error"]), f"{record['relative_mse']:.2f}")
            for name, record in zip(("all", *self._scale_names), self.records(), strict=True)
        )
        return Description(
            "Invariance",
            f"{about['generator']}, layer {self.layer}, {about['transformation']}: MSE {self.mse:.3g} ± "
            f"{self.standard_error:.2g} over {counted(len(self), 'image')}",
            table=Table(
                head, rows, "Relative to a layer that ignores the transformation: 0 is equivariant, 1 is no effect."
            ),
            pictures=(
                Picture("Images, those of the transformed layer, and the transformed images.", self.plot_images),
                Picture("MSE of each scale ± one standard error.", self.plot),
            ),
            warning="" if len(self) > 1 else "a single image gives no standard error; measure more",
            page="invariance",
        )

    def records(self) -> Iterator[dict[str, Any]]:
        """One for the whole image, which is scale 0, and one for each scale, from coarse to fine."""
        scales = self.scales
        sizes = [None, *scales.pixels]
        columns = (
            torch.cat([whole[None], per_scale])
            for whole, per_scale in (
                (self.mse, self.mse_per_scale),
                (self.standard_error, self.standard_error_per_scale),
                (self.relative_mse, self.relative_mse_per_scale),
            )
        )
        for scale, (pixels, mse, error, relative) in enumerate(zip(sizes, *columns, strict=True)):
            yield {
                "layer": self.layer,
                "scale": scale,
                "pixels": pixels,
                "mse": float(mse),
                "standard_error": float(error),
                "relative_mse": float(relative),
                "images": len(self),
            }

    @property
    def _scale_names(self) -> list[str]:
        first, *others = (f"{pixels} px" for pixels in self.scales.pixels)
        return [f"{first} means", *others]

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
        """() of ``mse``; NaN for a single image."""
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
        """() MSE relative to a layer that ignores the transformation: 0 = equivariant, 1 = no effect."""
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

    def plot(
        self,
        ax: Axes | None = None,
        *,
        against: Invariance | Sequence[Invariance] = (),
        relative: bool = False,
    ) -> Plot[Axes]:
        """MSE per scale with ± one standard error (S000 Fig. 3c), beside other layers' ``against`` the same images.

        >>> early.plot(against=[middle, late], relative=True)  # doctest: +SKIP

        With ``relative``, over the MSE of a layer that ignores the transformation, which is 1.
        """
        from .plots import plot_mse_per_scale

        results = self._beside(against)
        values = [
            (result.layer, (result.relative_mse_per_scale if relative else result.mse_per_scale).numpy())
            for result in results
        ]
        errors = [
            (result.relative_standard_error_per_scale if relative else result.standard_error_per_scale).numpy()
            if len(result) > 1
            else None
            for result in results
        ]
        return plot_mse_per_scale(values, errors, self.scales.pixels, relative=relative, ax=ax)

    def plot_images(
        self, ax: Axes | None = None, *, most: int = 8, against: Invariance | Sequence[Invariance] = ()
    ) -> Plot[Axes]:
        """Images, those of the transformed layers, and the transformed images (S000 Fig. 3a)."""
        from .plots import plot_transformed

        layers = [(result.layer, result.images[:most].numpy()) for result in self._beside(against)]
        base, transformed = self.base[:most].numpy(), self.transformed[:most].numpy()
        return plot_transformed(base, layers, transformed, self._image_range, ax=ax)

    def plot_scales(
        self, ax: Axes | None = None, *, image: int = 0, against: Invariance | Sequence[Invariance] = ()
    ) -> Plot[Axes]:
        """One image apart into scales, and what is between it and the transformed image in each (S000 Fig. 3c)."""
        from .plots import plot_components

        if not -len(self.images) <= image < len(self.images):
            raise ProbeError(f"image {image} asked of a result that keeps {len(self.images)}; give one from 0 on")

        def components(images: Tensor) -> Floats:
            return self.scales.components(images[image].double().numpy())

        layers = [(result.layer, components(result.images)) for result in self._beside(against)]
        return plot_components(components(self.transformed), layers, self.scales.pixels, self._image_range, ax=ax)

    @property
    def _image_range(self) -> tuple[float, float]:
        low, high = self.provenance["image_range"]
        return float(low), float(high)

    def _beside(self, others: Invariance | Sequence[Invariance]) -> list[Invariance]:
        """This result and others of the same images, of which only the layers differ."""
        results = [self, *([others] if isinstance(others, Invariance) else others)]
        for other in results[1:]:
            for name in ("generator", "transformation", "wavelet", "levels", "seed", "latents_sha256", "n_images"):
                if other.provenance[name] != self.provenance[name]:
                    raise ProbeError(
                        f"results of layers {self.layer!r} and {other.layer!r} differ in their {name} "
                        f"({self.provenance[name]!r} and {other.provenance[name]!r}); plot results of the same images"
                    )
        return results


def _standard_error(values: Tensor) -> Tensor:
    """Of the mean over the first dimension."""
    if len(values) < 2:
        return torch.full_like(values[0], torch.nan)
    spread: Tensor = values.std(0)
    return spread / math.sqrt(len(values))
