"""Fidelity: are hybrids like the generator's images, and like those it was trained on (S003 Table 2)?"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..base.errors import ProbeError, whole
from ..base.progress import progress_bar
from ..classifiers import load_classifier
from ..data import Images, open_images
from ..generator.adapter import GeneratorAdapter
from ..generator.images import require_pictures
from ..generator.latents import stream_seed
from ..generator.units import UnitSet, UnitsLike, parse_layers, parse_units
from ..hybrids.hybridizer import Hybridizer
from .frechet import FewSamples, Floats, Gaussian, few_samples
from .realism import NEIGHBOURS, inside, realism, reference_error
from .result import Fidelity

DEFAULT_IMAGES = 1024
DEFAULT_RESAMPLES = 20
_CHUNK = 64
# Streams of latents: every group has its own, so that no two share an image.
_GENERATED, _AGAIN, _HYBRIDS = 20, 21, 30

Pictures: TypeAlias = "Images | Tensor | npt.NDArray[Any] | str | os.PathLike[str]"


@runtime_checkable
class Features(Protocol):
    """Anything with a name that maps images (n, C, H, W) to features (n, d): a :class:`Classifier`, or your own."""

    name: str

    def features(self, images: Tensor, *, image_range: tuple[float, float] = ...) -> Tensor: ...

    def provenance(self) -> dict[str, Any]: ...


class FidelityTest:
    """Fréchet distances between real, generated and hybrid images, and how real each hybrid is.

    >>> test = cp.FidelityTest(gen, "main.8", features="efficientnet-lite0")  # doctest: +SKIP
    >>> print(test.measure(finder.modules_, real="path/to/pictures"))  # doctest: +SKIP

    Args:
        generator: from :func:`wrap` or :func:`load`.
        layer: a layer's name, or several, whose channels are set.
        features: "inception", the usual one, by torch-fidelity; a classifier, or its name for
            :func:`load_classifier`, with its own preprocessing; or an object of your own (see :class:`Features`).
    """

    def __init__(
        self,
        generator: GeneratorAdapter,
        layer: str | Sequence[str],
        *,
        features: str | os.PathLike[str] | Features = "inception",
    ) -> None:
        self.generator = generator
        self.layers = parse_layers(generator, layer)
        require_pictures(generator.image_size, "FidelityTest")
        self.features = _features(features, generator.device)

    def measure(
        self,
        units: UnitsLike,
        *,
        labels: Sequence[str] | None = None,
        real: Pictures | None = None,
        real_is: str | None = None,
        skip_unreadable: bool = False,
        n_images: int | None = None,
        resamples: int = DEFAULT_RESAMPLES,
        neighbours: int = NEIGHBOURS,
        seed: int = 0,
        keep: int = 8,
        show_progress: bool = False,
    ) -> Fidelity:
        """S003 Table 2, with a second sample of generated images as the chance level.

        Args:
            units: the modules whose hybrids are measured: channels of the layer | {layer: channels} | a list of
                such sets.
            labels: names of the unit sets; by default their own.
            real: reference images (n, C, H, W) of bytes or in −1…1, or a folder or zip of pictures. Without it, hybrids
                are compared with generated images alone.
            skip_unreadable: leave out pictures that cannot be decoded; the provenance says which.
            real_is: what these are, such as "training images"; by default "real images".
            n_images: of each group, the same for all (conventions 26); by default 1024, or the number of real images.
            resamples: bootstrap samples of the images of every group, for standard errors.
            neighbours: of the balls whose union is the estimated manifold of real images (Kynkäänniemi et al. 2019).
            keep: how many images of each group the result holds.

        Warns:
            FewSamples: there are no more images than features.
        """
        sets, names = self._named(units, labels)
        pictures, real_is = self._real(real, real_is, skip_unreadable)
        n, seed = self._number(n_images, pictures), whole(seed, "the seed", 0)
        resamples = whole(resamples, "resamples", 0)
        keep = min(whole(keep, "keep", 1), n)
        groups = self._groups(pictures, real_is, zip(names, sets, strict=True), n, seed)
        with self.generator.unchanged():
            about = self.generator.provenance()
            with progress_bar(n * len(groups), "features", "image", show_progress) as bar:
                collected = [self._collect(images, keep, bar) for _, images in groups]
        features = [values for values, _ in collected]
        if sentence := few_samples(n, features[0].shape[1]):
            warnings.warn(sentence, FewSamples, stacklevel=2)
        settings = {"n_features": features[0].shape[1], "n_images": n, "seed": seed}
        settings |= {"resamples": resamples, "neighbours": neighbours}
        return Fidelity(
            groups=tuple(name for name, _ in groups),
            distances=_frechet_distances([Gaussian.of(values) for values in features]),
            replicates=_replicates(features, resamples, seed, show_progress),
            realism=_by_group(realism, features, neighbours),
            inside=_by_group(inside, features, neighbours),
            examples=torch.stack([images for _, images in collected]),
            units=tuple(sets),
            provenance=about | self._provenance(pictures, real_is) | settings,
            reference_error=_reference_errors(features, neighbours, seed),
        )

    def _provenance(self, pictures: Images | None, real_is: str) -> dict[str, Any]:
        return {
            "layers": [layer.name for layer in self.layers],
            "features": self.features.provenance(),
            "real": None if pictures is None else real_is,
            "real_source": None if pictures is None else pictures.source,
            "real_notes": [] if pictures is None else list(pictures.notes),
        }

    # --- arguments, checked -------------------------------------------------------------------------

    def _named(self, units: UnitsLike, labels: Sequence[str] | None) -> tuple[list[UnitSet], list[str]]:
        if units is None:
            raise ProbeError("no units are given; give the modules whose hybrids are to be looked at")
        sets = [one for one in parse_units(units, self.layers, self.generator) if one.size]
        if not sets:
            raise ProbeError("the units hold no channel; give a module with at least one")
        names = list(labels) if labels is not None else [item.name or f"hybrids {k}" for k, item in enumerate(sets, 1)]
        if len(names) != len(sets):
            raise ProbeError(f"{len(names)} labels are given for {len(sets)} unit sets with channels; give one each")
        return sets, names

    def _real(self, real: Pictures | None, real_is: str | None, skip_unreadable: bool) -> tuple[Images | None, str]:
        if real is None:
            if real_is is not None:
                raise ProbeError(f"real_is={real_is!r} is given without images; give real= as well")
            return None, ""
        colours, height, width = require_pictures(self.generator.image_size, "a comparison with real images")
        if isinstance(real, Images):
            pictures = real
        else:
            given: Any = real.detach().cpu().numpy() if isinstance(real, Tensor) else real
            square = height if isinstance(given, (str, os.PathLike)) and height == width else None
            wanted = colours if colours in (1, 3) else None
            pictures = open_images(given, size=square, colours=wanted, skip_unreadable=skip_unreadable)
        if pictures.size != self.generator.image_size:
            raise ProbeError(
                f"the real images are {'×'.join(map(str, pictures.size))} and generated ones "
                f"{colours}×{height}×{width}; give them in the size that is generated"
            )
        return pictures, real_is or ("sampled images" if pictures.generated else "real images")

    def _number(self, n_images: int | None, pictures: Images | None) -> int:
        if pictures is None or n_images is None:
            most = DEFAULT_IMAGES if pictures is None else min(DEFAULT_IMAGES, len(pictures))
            return whole(most if n_images is None else n_images, "n_images", 2)
        if whole(n_images, "n_images", 2) > len(pictures):
            raise ProbeError(
                f"{n_images} images of each group are asked for and {len(pictures)} real ones given; ask for at most "
                "as many, since distances of unequal numbers cannot be compared"
            )
        return n_images

    # --- images, chunk by chunk ---------------------------------------------------------------------

    def _groups(
        self, pictures: Images | None, real_is: str, named: Iterable[tuple[str, UnitSet]], n: int, seed: int
    ) -> list[tuple[str, Iterator[Tensor]]]:
        """The groups in the table's order, each with an iterator over its images."""
        real = [] if pictures is None else [(real_is, self._drawn(pictures, n, seed))]
        streams = [("generated", _GENERATED), ("generated again", _AGAIN)]
        generated = [(name, self._generated(stream, n, seed)) for name, stream in streams]
        hybrids = [(name, self._hybrids(units, place, n, seed)) for place, (name, units) in enumerate(named)]
        return [*real, *generated, *hybrids]

    def _drawn(self, pictures: Images, n: int, seed: int) -> Iterator[Tensor]:
        """Real images in random order, since folders are sorted by class."""
        order = torch.from_numpy(np.random.default_rng([seed, len(pictures)]).permutation(len(pictures))[:n])
        low, high = self.generator.image_range
        for start in range(0, n, _CHUNK):
            yield (pictures.floats(order[start : start + _CHUNK]) + 1) / 2 * (high - low) + low

    def _generated(self, stream: int, n: int, seed: int) -> Iterator[Tensor]:
        for start in range(0, n, _CHUNK):
            latents = self.generator.sample(min(_CHUNK, n - start), seed=seed, stream=stream, start=start)
            # Noise inside the forward is numbered within a call: another seed for every chunk.
            yield self.generator(latents, seed=stream_seed(seed, stream, start))

    def _hybrids(self, units: UnitSet, place: int, n: int, seed: int) -> Iterator[Tensor]:
        hybridizer = Hybridizer(self.generator, [layer for layer in units if units[layer]])
        streams = _HYBRIDS + 2 * place, _HYBRIDS + 2 * place + 1
        for start in range(0, n, _CHUNK):
            base, source = (
                self.generator.sample(min(_CHUNK, n - start), seed=seed, stream=stream, start=start)
                for stream in streams
            )
            noise = stream_seed(seed, streams[0], start)
            yield hybridizer.hybridize(base, source, units=dict(units), seed=noise).images[0]

    def _collect(self, chunks: Iterator[Tensor], keep: int, bar: Any) -> tuple[Floats, Tensor]:
        """Features of all images, and the first ``keep`` images."""
        features: list[Tensor] = []
        kept: list[Tensor] = []
        for images in chunks:
            made = self.features.features(images, image_range=self.generator.image_range)
            if not isinstance(made, Tensor) or made.dim() != 2 or len(made) != len(images):
                shape = tuple(made.shape) if isinstance(made, Tensor) else type(made).__name__
                raise ProbeError(
                    f"features {self.features.name!r} are {shape} for {len(images)} images; let features() return "
                    "(n, features)"
                )
            features.append(made.detach().double().cpu())
            kept += [image.float().cpu() for image in images[: keep - len(kept)]]
            bar.update(len(images))
        return torch.cat(features).numpy(), torch.stack(kept)


def _features(given: Any, device: torch.device) -> Features:
    if isinstance(given, str) and given == "inception":
        from .inception import Inception

        return Inception(device=device)
    if isinstance(given, (str, os.PathLike)):
        return load_classifier(given, device=device)
    if not isinstance(given, Features):
        raise ProbeError(
            f'features are a {type(given).__name__}; give "inception", a classifier or its name, or an object with a '
            "name and the methods features and provenance"
        )
    return given


def _frechet_distances(gaussians: Sequence[Gaussian]) -> Floats:
    distances = np.zeros((len(gaussians), len(gaussians)))
    for i, j in combinations(range(len(gaussians)), 2):
        distances[i, j] = distances[j, i] = gaussians[i].distance(gaussians[j])
    return distances


def _replicates(features: Sequence[Floats], resamples: int, seed: int, show: bool) -> Floats:
    """(resamples, groups, groups) distances of bootstrap samples of the images of each group."""
    rng = np.random.default_rng([seed, len(features), resamples])
    n, replicates = len(features[0]), []
    with progress_bar(resamples, "bootstrap", "sample", show) as bar:
        for _ in range(resamples):
            resampled = [values[rng.integers(n, size=n)] for values in features]
            replicates.append(_frechet_distances([Gaussian.of(values) for values in resampled]))
            bar.update(1)
    return np.stack(replicates) if replicates else np.zeros((0, len(features), len(features)))


def _by_group(measure: Any, features: Sequence[Floats], neighbours: int) -> Floats:
    """(groups, images) realism relative to the first group; NaN for that group, each of whose images lies in its own
    ball."""
    reference, *others = features
    rows = [np.asarray(measure(values, reference, neighbours=neighbours), np.float64) for values in others]
    return np.stack([np.full(len(reference), np.nan), *rows])


def _reference_errors(features: Sequence[Floats], neighbours: int, seed: int) -> Floats:
    """(groups,) of precision; NaN for the reference itself."""
    reference, *others = features
    errors = [reference_error(values, reference, neighbours=neighbours, seed=seed) for values in others]
    return np.array([np.nan, *errors])
