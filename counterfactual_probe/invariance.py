"""Invariance: does a layer that is stretched give a stretched image, and in which scales not (S000 §5.1)?"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from . import latents as lt
from .blame import blamed_on
from .engine import Assignment, Effect, Pairs, Stream
from .errors import ProbeError, whole
from .generator import GeneratorAdapter
from .latents import Latents
from .progress import progress_bar
from .results import Result
from .transformations import Transformation, stretch
from .units import UnitSet, parse_layers
from .wavelets import Scales

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DEFAULT_IMAGES = 64

# Maps (channels, H, W) of a layer or an image of any size -> maps of the same shape.
MapsFunction: TypeAlias = Callable[[Tensor], Tensor]


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
        from .plots_invariance import plot_mse_per_scale

        return plot_mse_per_scale([self], ax=ax)

    def plot_images(self, ax: Axes | None = None, *, most: int = 8) -> tuple[Figure, Axes]:
        """Images, those of the transformed layer, and the transformed images (S000 Fig. 3a)."""
        from .plots_invariance import plot_transformed

        return plot_transformed([self], ax=ax, most=most)

    def plot_scales(self, ax: Axes | None = None, *, image: int = 0) -> tuple[Figure, Axes]:
        """One image apart into scales, and what is between it and the transformed image in each (S000 Fig. 3c)."""
        from .plots_invariance import plot_components

        return plot_components([self], ax=ax, image=image)


class StretchTest:
    """Transforms all maps of a layer, and compares the image that follows with the transformed image.

    >>> test = cp.StretchTest(gen, "main.8")  # stretched 1.5 times, horizontally  # doctest: +SKIP
    >>> result = test.measure(gen.sample(64))  # doctest: +SKIP
    >>> result.mse, result.mse_per_scale, result.images.shape  # doctest: +SKIP
    >>> cp.StretchTest(gen, "main.8", transformation=cp.transformations.flip()).measure().plot()  # doctest: +SKIP

    Args:
        generator: from :func:`wrap` or :func:`load`.
        layer: a layer's name; its maps must have a height and a width.
        transformation: by default :func:`transformations.stretch`; others there, or a function from maps
            (channels, H, W) to maps of the same shape, which is given the maps of the layer and the images.
        levels, wavelet: of the scales (see :class:`wavelets.Scales`).
    """

    def __init__(
        self,
        generator: GeneratorAdapter,
        layer: str,
        *,
        transformation: Transformation | MapsFunction | None = None,
        levels: int | None = None,
        wavelet: str = "haar",
    ) -> None:
        infos = parse_layers(generator, layer)
        if len(infos) > 1:
            raise ProbeError(f"{len(infos)} layers are given to one test; make a test for each")
        self.generator, self.layer = generator, infos[0]
        if len(self.layer.size) != 2:
            has = f"tokens in a row of {self.layer.size[0]}" if self.layer.size else "one number per channel"
            spatial = [info.name for info in generator.layers.values() if len(info.size) == 2]
            raise ProbeError(
                f"layer {self.layer.name!r} has {has}, and no height and width to transform; choose a layer with maps"
                + (f", such as {', '.join(map(repr, spatial[:3]))}" if spatial else "")
            )
        self.transformation = stretch() if transformation is None else transformation
        if not callable(self.transformation):
            raise ProbeError(
                f"the transformation is {self.transformation!r}; give one of counterfactual_probe.transformations, or "
                "a function from maps (channels, H, W) to maps of the same shape"
            )
        self.scales = Scales(generator.image_size[1:], levels, wavelet)
        self.wavelet = wavelet

    def measure(
        self,
        latents: Latents | None = None,
        *,
        n_images: int | None = None,
        seed: int = 0,
        keep: int | None = None,
        show_progress: bool = False,
    ) -> Invariance:
        """The error of each image, and of its scales.

        Args:
            latents: of the images. Without them ``n_images`` (64 by default) are drawn with ``seed``.
            seed: of the latents drawn, and of noise inside the forward, which both runs of an image share.
            keep: how many images the result holds, by default all; errors are measured on every one.
        """
        pairs = self._pairs(latents, n_images, seed)
        kept = pairs.n if keep is None else min(whole(keep, "keep", 1), pairs.n)
        every = UnitSet({self.layer.name: tuple(range(self.layer.channels))})
        intervention = Assignment([every], lambda _units, _layer, _sample, maps: self._transformed(maps))
        errors, changes, shown = [], [], []
        with self.generator.unchanged(), self.generator.session():
            stream = Stream(self.generator, intervention, pairs, seed=seed)
            with progress_bar(pairs.n, self.layer.name, "image", show_progress) as bar:
                for effect in stream.run():
                    images = self._images(effect)
                    result, base, target = (value.cpu().double().numpy() for value in images)
                    errors.append((float(((result - target) ** 2).mean()), self.scales.energies(result - target)))
                    changes.append(self.scales.energies(base - target))
                    if effect.pair < kept:
                        shown.append(images.float().cpu().numpy())
                    bar.update(1)
            provenance = self._provenance(latents, pairs.n, seed, stream)
        images, base, transformed = (torch.from_numpy(np.stack(rows)) for rows in zip(*shown, strict=True))
        return Invariance(
            image_mse=torch.tensor([mse for mse, _ in errors], dtype=torch.float64),
            image_mse_per_scale=torch.from_numpy(np.stack([scales for _, scales in errors])),
            image_change_per_scale=torch.from_numpy(np.stack(changes)),
            images=images,
            base=base,
            transformed=transformed,
            provenance=provenance,
        )

    def _pairs(self, latents: Latents | None, n_images: int | None, seed: int) -> Pairs:
        if latents is None:
            n = whole(DEFAULT_IMAGES if n_images is None else n_images, "n_images", 1)
            return Pairs(n, lambda start, stop: self.generator.sample(stop - start, seed=seed, start=start))
        n = self.generator.check(latents)
        if n_images is not None:
            raise ProbeError(f"{n} latents and n_images={n_images} are given; give one of the two")
        return Pairs(n, lambda start, stop: lt.take(latents, slice(start, stop)))

    def _images(self, effect: Effect) -> Tensor:
        """(3, C, H, W): of the transformed layer, without intervention, and that one transformed."""
        return torch.stack([effect.hybrids[0], effect.original, self._transformed(effect.original)])

    def _transformed(self, maps: Tensor) -> Tensor:
        transformation = self.transformation
        if isinstance(transformation, Transformation):
            return transformation(maps)
        cure = f"call it on a tensor of shape {tuple(maps.shape)} by itself to see why"
        with blamed_on("the transformation", cure):
            found: Any = transformation(maps.clone())
        if not isinstance(found, Tensor) or found.shape != maps.shape:
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ProbeError(
                f"the transformation returned {shape} for maps of shape {tuple(maps.shape)}; return a tensor of the "
                "same shape, for layers and images of every size"
            )
        return found

    def _provenance(self, latents: Latents | None, n: int, seed: int, stream: Stream) -> dict[str, Any]:
        own = self.transformation
        name = own.name if isinstance(own, Transformation) else getattr(own, "__name__", type(own).__name__)
        return self.generator.provenance() | {
            "layers": [self.layer.name],
            "transformation": name,
            "wavelet": self.wavelet,
            "levels": self.scales.levels,
            "n_images": n,
            "seed": seed,
            "latents_sha256": None if latents is None else lt.fingerprint(latents),
            "hybrids_per_eval": stream.hybrids_per_eval,
            "executor": stream.executor.name,
        }


def _standard_error(values: Tensor) -> Tensor:
    """Of the mean over the first dimension."""
    if len(values) < 2:
        return torch.full_like(values[0], torch.nan)
    spread: Tensor = values.std(0)
    return spread / math.sqrt(len(values))
