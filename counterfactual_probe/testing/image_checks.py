"""Checks of images: deterministic, finite, of one size and range, independent of the batch."""

from __future__ import annotations

import torch

from ..generator import latents as lt
from .bench import Bench, gap
from .outcome import Failed

_SPARE = 0.01  # of the range: sums of colours overshoot a little in many good generators
_OUTSIDE = 0.05  # of all pixel values


def size(bench: Bench) -> str:
    """Every latent gives an image of the size that the adapter has recorded."""
    for i in range(lt.count(bench.many)):
        image = bench.plain(lt.take(bench.many, slice(i, i + 1)), i, {})
        if tuple(image.shape) != (1, *bench.adapter.image_size):
            raise Failed(
                f"one latent gives an image of shape {tuple(image.shape)} and another (1, {_commas(bench)}); "
                "give images of one size, cropped or resized in image=..."
            )
    return f"every image is ({_commas(bench)})"


def deterministic(bench: Bench) -> str:
    """The same latents give bit-identical images each time."""
    first = bench.many_images
    for _ in range(2):
        again = bench.plain_images(bench.many)
        difference = float((first - again).abs().nan_to_num(0.0).max())
        # Some kernels of accelerators sum in an order that is not fixed.
        if difference > (0 if bench.adapter.device.type == "cpu" else bench.exact):
            raise Failed(
                f"images of the same latents differ from run to run, by up to {difference:.2g}; let the forward keep "
                "state only in attributes and buffers of the module, which are restored: no counter elsewhere, no list "
                "that grows"
            )
    return "the same latents give bit-identical images"


def finite(bench: Bench) -> str:
    """No NaN, no infinity."""
    images = bench.many_images
    if bad := sum(not bool(torch.isfinite(image).all()) for image in images):
        raise Failed(
            f"{bad} of {len(images)} images hold NaN or infinite values; check the range of the latents that "
            "sample_latents returns, the weights, and divisions or roots in the forward"
        )
    return f"{len(images)} images are finite"


def in_range(bench: Bench) -> str:
    """Pixels lie inside image_range, and use a visible part of it."""
    images = bench.many_images
    low, high = bench.adapter.image_range
    width = high - low
    extremes = float(images.min()), float(images.max())
    measured = f"pixels run from {extremes[0]:.4g} to {extremes[1]:.4g} and image_range is ({low:g}, {high:g})"
    spare = _SPARE * width
    outside = float(((images < low - spare) | (images > high + spare)).float().mean())
    if outside > _OUTSIDE:
        raise Failed(f"{measured}: {outside:.0%} of them lie outside; give the generator's own as image_range=...")
    if extremes[1] - extremes[0] < 0.01 * width:
        raise Failed(f"{measured}: they use less than a hundredth of it; give the generator's own as image_range=...")
    return measured + (f"; {outside:.1%} of them lie outside and are clipped in pictures" if outside else "")


def batch(bench: Bench) -> str:
    """Image i by itself equals image i in a batch."""
    adapter, latents = bench.adapter, bench.many
    if not adapter.batchable:
        reason = "the forward uses noise" if adapter.draws_noise else "samples of a batch influence one another"
        return f"samples are run one at a time, because {reason}"
    together, alone = adapter(latents), bench.many_images
    difference = gap(together, alone)
    if not difference <= bench.batched:
        raise Failed(
            f"an image differs by {difference:.2g} between a batch of {len(alone)} and a batch of one (tolerance "
            f"{bench.batched:.0e}); make each sample independent of the others: no statistics over the batch, no "
            "sorting, no padding to the longest"
        )
    return (
        f"an image by itself equals that in a batch of {len(alone)} to {difference:.1g} (tolerance {bench.batched:.0e})"
    )


def _commas(bench: Bench) -> str:
    return ", ".join(map(str, bench.adapter.image_size))
