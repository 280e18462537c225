"""Invariance: does stretching a layer stretch the image, and at which scales does it not (S000 §5.1)?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ..base.caller import blamed_on
from ..base.errors import ProbeError, whole
from ..base.progress import progress_bar
from ..engine import Assignment, Effect, Pairs, Stream
from ..generator import latents as lt
from ..generator.adapter import GeneratorAdapter
from ..generator.images import require_pictures
from ..generator.latents import Latents
from ..generator.state.settings import plain_arithmetic
from ..generator.units import UnitSet, parse_layers
from .result import Invariance
from .scales import Scales
from .transformations import Transformation, stretch

DEFAULT_IMAGES = 64

# Maps (channels, H, W) of a layer or an image of any size -> maps of the same shape.
MapsFunction: TypeAlias = Callable[[Tensor], Tensor]


class StretchTest:
    """Transforms all maps of a layer and compares the resulting image with the transformed image.

    The field calls this property equivariance; the name is that of S000.

    >>> test = cp.StretchTest(gen, "main.8")  # 1.5 times, horizontally  # doctest: +SKIP
    >>> result = test.measure(gen.sample(64))  # doctest: +SKIP
    >>> result.mse, result.mse_per_scale, result.images.shape  # doctest: +SKIP
    >>> cp.StretchTest(gen, "main.8", transformation=cp.transformations.flip()).measure().plot()  # doctest: +SKIP

    Args:
        generator: from :func:`wrap` or :func:`load`.
        layer: a layer's name; its maps must have a height and a width.
        transformation: by default :func:`transformations.stretch`; another one from there, or a function from maps
            (channels, H, W) to maps of the same shape, which is called with the maps of the layer and with images.
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
        _, height, width = require_pictures(generator.image_size, "the stretch test")
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
        self.scales = Scales((height, width), levels, wavelet)
        self.wavelet = wavelet

    @plain_arithmetic()
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
            latents: of the images. Without them ``n_images`` (64 by default) are sampled with ``seed``.
            seed: of these samples, and of noise inside the forward, which both runs of an image share.
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
        """(3, C, H, W): with the layer transformed, without intervention, and the latter transformed."""
        return torch.stack([effect.hybrids[0], effect.original, self._transformed(effect.original)])

    def _transformed(self, maps: Tensor) -> Tensor:
        transformation = self.transformation
        if isinstance(transformation, Transformation):
            return transformation(maps)
        cure = f"call it on a tensor of shape {tuple(maps.shape)} by itself to see why"
        with blamed_on("the transformation", cure):
            transformed: Any = transformation(maps.clone())
        if not isinstance(transformed, Tensor) or transformed.shape != maps.shape:
            shape = tuple(transformed.shape) if isinstance(transformed, Tensor) else type(transformed).__name__
            raise ProbeError(
                f"the transformation returned {shape} for maps of shape {tuple(maps.shape)}; return a tensor of the "
                "same shape, for layers and images of every size"
            )
        return transformed

    def _provenance(self, latents: Latents | None, n: int, seed: int, stream: Stream) -> dict[str, Any]:
        given = self.transformation
        name = given.name if isinstance(given, Transformation) else getattr(given, "__name__", type(given).__name__)
        return self.generator.provenance() | {
            "layers": [self.layer.name],
            "transformation": name,
            "wavelet": self.wavelet,
            "levels": self.scales.levels,
            "n_images": n,
            "seed": seed,
            "latents_sha256": None if latents is None else lt.fingerprint(latents),
            "hybrids_per_eval": stream.hybrids_per_eval,
            "executor": str(stream.executor.choice),
        }
