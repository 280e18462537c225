"""Latents of given pictures, by optimisation from several starts, for generators that have no encoder."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..base.errors import ProbeError, whole
from ..base.progress import progress_bar
from ..generator import latents as lt
from ..generator.adapter import GeneratorAdapter
from ..generator.images import require_images
from ..generator.latents import Latents
from .descent import descend, polish
from .differentiable import differentiable
from .objective import Objective, Values, require_slopes
from .result import Inversion

STARTS = 4  # streams 0 to 3 of random numbers are base, source, noise and the posterior of encoders
OWN = 5
_SAMPLES = 64  # of which the variance of the generator's own images is known
_ENOUGH = 8  # samples of which it is known which latents vary, and how much


class NotReached(UserWarning):
    """No latent was found whose image is close to a picture."""


def invert(
    generator: GeneratorAdapter,
    images: Tensor,
    *,
    starts: int = 4,
    steps: int = 200,
    seed: int = 0,
    show_progress: bool = False,
    **conditions: Any,
) -> Inversion:
    """Find latents whose images are the given ones, as far as the generator can make them.

    >>> found = cp.invert(gen, photos)  # doctest: +SKIP
    >>> found.latents, found.relative_error  # doctest: +SKIP

    The mean squared error of the pixels is minimised by Adam, from several latents that are sampled like the
    generator's own, and by L-BFGS from where the best of them ends. An image's result depends on no other image.
    Latents of whole numbers, such as classes, stay as they were sampled, and so does what sampling does not vary, such
    as a truncation: give them as ``conditions``, one for all or one for each image.

    Args:
        images: (n, C, H, W) of the generator's size, in its ``image_range``.
        starts: how many latents are tried for each image.
        steps: of Adam from each start; L-BFGS makes at most as many iterations.
        seed: of the starts, and of noise inside the forward; the same seed gives the same latents.
        conditions: of :meth:`GeneratorAdapter.sample`, such as ``classes``.

    Warns:
        NotReached: an image's error is above a fiftieth of the variance of the generator's own images.

    Raises:
        ProbeError: images of another size or range, or with NaN; a generator without gradients from its images to its
            latents, such as a quantised one.
    """
    found = inverted(
        generator, images, starts=starts, steps=steps, seed=seed, show_progress=show_progress, conditions=conditions
    )
    warn_if_not_reached(found, stacklevel=3)
    return found


def warn_if_not_reached(found: Inversion, *, stacklevel: int) -> None:
    """Warn of images that the generator was not found to make."""
    if warning := found.warning():
        warnings.warn(warning, NotReached, stacklevel=stacklevel)


def inverted(
    generator: GeneratorAdapter,
    images: Tensor,
    *,
    starts: int = 4,
    steps: int = 200,
    seed: int = 0,
    show_progress: bool = False,
    conditions: Mapping[str, Any] | None = None,
) -> Inversion:
    """The same without the warning, for callers that give it themselves."""
    require_images(images, generator.image_size, generator.image_range, generator.device)
    starts, steps, seed = whole(starts, "starts", 1), whole(steps, "steps", 1), whole(seed, "the seed", 0)
    given = dict(conditions or {})
    with torch.inference_mode(False):  # ordinary tensors, of which gradients can be taken
        rows, scales = _starts(generator, len(images), starts, seed, given)
        spread = variance_of_own(generator, given)
    return _inversion(generator, images, rows, scales, spread, steps=steps, seed=seed, show_progress=show_progress)


def inverted_from(
    generator: GeneratorAdapter,
    images: Tensor,
    starts: Sequence[Latents],
    *,
    spread: float,
    steps: int = 200,
    seed: int = 0,
    show_progress: bool = False,
) -> Inversion:
    """The same from given latents: each start holds one latent for every image. Noise is that of the images' numbers.

    >>> inverted_from(gen, hybrids.images[0], [z1, z2], spread=variance_of_own(gen))  # doctest: +SKIP
    """
    n = len(images)
    with torch.inference_mode(False):
        by_image = torch.arange(n * len(starts)).view(len(starts), n).T.flatten()
        rows = lt.take(lt.join(starts), by_image)
        scales = _scales(generator, generator.sample(_ENOUGH, seed=seed, stream=STARTS))
    return _inversion(generator, images, rows, scales, spread, steps=steps, seed=seed, show_progress=show_progress)


def _inversion(
    generator: GeneratorAdapter,
    images: Tensor,
    rows: Latents,
    scales: dict[str, float],
    spread: float,
    *,
    steps: int,
    seed: int,
    show_progress: bool,
) -> Inversion:
    """Descend from the rows, as many for each image, and measure what is reached."""
    starts = lt.count(rows) // len(images)
    with torch.inference_mode(False):
        pictures = images.detach().to(precision(generator), copy=True)
        with generator.unchanged(), differentiable(generator):
            latents, errors = _found(
                generator,
                pictures,
                rows,
                scales,
                starts=starts,
                steps=steps,
                seed=seed,
                spread=spread,
                show_progress=show_progress,
            )
        reconstructions = generator(latents, seed=seed)
        error = (reconstructions.to(pictures.dtype) - pictures).square().flatten(1).mean(1)
    about = {"starts": starts, "steps": steps, "seed": seed, "variance_of_own_images": spread}
    provenance = generator.provenance() | {"inversion": about, "n_images": len(images)}
    relative = relative_errors(error, spread)
    return Inversion(latents, images.detach(), reconstructions, error.cpu(), relative.cpu(), errors.cpu(), provenance)


def precision(generator: GeneratorAdapter) -> torch.dtype:
    """In which errors of its images are computed: at least float32."""
    return torch.float64 if generator.dtype is torch.float64 else torch.float32


def _starts(
    generator: GeneratorAdapter, n: int, starts: int, seed: int, conditions: Mapping[str, Any]
) -> tuple[Latents, dict[str, float]]:
    """The same so many latents for each of n images, but for what its conditions say, image by image; and how much
    those vary that sampling varies."""
    count = max(starts, _ENOUGH)

    def sampled(number: int) -> Latents:
        return generator.sample(count, seed=seed, stream=STARTS, **_of_image(conditions, number, n))

    alike = not any(lt.one_each(value) for value in conditions.values())
    first = sampled(0)
    each = [first if alike or number == 0 else sampled(number) for number in range(n)]
    return lt.join([lt.take(latents, slice(0, starts)) for latents in each]), _scales(generator, first)


def _scales(generator: GeneratorAdapter, sampled: Latents) -> dict[str, float]:
    """How much each latent varies that sampling varies, and that holds floating-point numbers."""
    scales = {}
    for label, value in lt.named_tensors(sampled):
        if value.is_floating_point() and bool((value != value[:1]).any()):
            scales[label] = float(value.double().std())
    if not scales:
        raise ProbeError(
            f"sampling varies no latent of {generator.name} that holds floating-point numbers, so there is nothing to "
            "descend by; give latents of your own"
        )
    return scales


def _of_image(conditions: Mapping[str, Any], number: int, n: int) -> dict[str, Any]:
    """The conditions of one image."""
    for name, value in conditions.items():
        if lt.one_each(value) and len(value) != n:
            raise ProbeError(f"{name} holds {len(value)} values for {n} images; give one each, or one for all")
    return {name: value[number] if lt.one_each(value) else value for name, value in conditions.items()}


def variance_of_own(generator: GeneratorAdapter, conditions: Mapping[str, Any] | None = None) -> float:
    """The mean squared distance of the generator's own images from their mean: the error of an image that is right on
    average alone."""
    every: dict[str, Any] = {
        name: [value[i % len(value)] for i in range(_SAMPLES)] if lt.one_each(value) else value
        for name, value in (conditions or {}).items()
    }
    images = generator(generator.sample(_SAMPLES, stream=OWN, **every)).double()
    return float((images - images.mean(0)).square().mean())


def relative_errors(error: Tensor, spread: float) -> Tensor:
    """Errors as shares of the variance of the generator's own images; 0 or infinite where these are all alike."""
    return error / spread if spread > 0 else torch.where(error > 0, torch.inf, 0.0).to(error.dtype)


def _found(
    generator: GeneratorAdapter,
    pictures: Tensor,
    rows: Latents,
    scales: Mapping[str, float],
    *,
    starts: int,
    steps: int,
    seed: int,
    spread: float,
    show_progress: bool,
) -> tuple[Latents, Tensor]:
    """The latents of the pictures, and the error from each start."""
    n = len(pictures)
    owner = torch.arange(n).repeat_interleave(starts)

    def objective(index: slice | Tensor) -> Objective:
        numbers = owner[index]
        return Objective(generator, lt.take(rows, index), list(scales), pictures[numbers], numbers.tolist(), seed)

    require_slopes(objective(slice(0, 1)))
    with progress_bar(n * (starts + 1) * steps, "inversion", "step", show_progress) as bar:

        def descended(index: slice) -> tuple[Values, Tensor]:
            return descend(objective(index), scales, steps, lambda: bar.update(len(owner[index])))

        parts = list(generator.batches(n * starts, descended))
        errors = torch.cat([errors for _, errors in parts]).view(n, starts)
        values = {label: torch.cat([part[label] for part, _ in parts]) for label in scales}
        latents = []
        for picture, start in enumerate(errors.argmin(1).tolist()):
            row = picture * starts + start
            best = {label: value[row : row + 1] for label, value in values.items()}
            latents.append(_polished(objective(slice(row, row + 1)), best, steps, spread))
            bar.update(steps)
    return lt.join(latents), errors


def _polished(objective: Objective, values: Values, steps: int, spread: float) -> Latents:
    """The latents of one row after L-BFGS, unless these are no better."""
    before, _ = objective.slopes(values)
    better, after = polish(objective, values, steps, spread or 1.0)
    return objective.with_values(better if bool(after < before) else values)
