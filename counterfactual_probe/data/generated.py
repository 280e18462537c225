"""Training images sampled from a generator."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from ..base.errors import ProbeError, whole
from ..base.progress import progress_bar
from ..generator.adapter import GeneratorAdapter
from ..generator.images import require_pictures
from ..registry.pretrained import available, load, pretrained
from .images import NOT_STATED, Images, to_bytes

PREFIX = "generator:"
SAMPLES = 4  # random stream, used by nothing else: analyses of the trained model use other latents
_CHUNK = 256


def generated(
    generator: str | GeneratorAdapter,
    n: int | None,
    *,
    seed: int,
    size: int | None = None,
    terms: str | None = None,
    show_progress: bool = False,
) -> Images:
    """Samples of a generator, given by name or as an object, as bytes; sample i depends on (seed, i) alone."""
    if n is None:
        raise ProbeError("the number of images to sample from the generator is missing; give images=, or --images")
    n = whole(n, "the number of images", 1)
    gen = load(generator) if isinstance(generator, str) else generator
    colours, height, width = require_pictures(gen.image_size, "training")
    if colours not in (1, 3):
        raise ProbeError(f"{gen.name} makes images of {colours} colours; training takes 1 or 3")
    shape = (height, width) if size is None else (size, size)
    pixels = torch.empty(n, colours, *shape, dtype=torch.uint8)
    with progress_bar(n, "sampling training images", "image", show_progress) as bar, gen.session():
        for start in range(0, n, _CHUNK):
            count = min(_CHUNK, n - start)
            images = gen(gen.sample(count, seed=seed, stream=SAMPLES, start=start), seed=seed)
            if shape != (height, width):
                images = F.interpolate(images, shape, mode="bilinear", antialias=True)
            pixels[start : start + count] = to_bytes(images, gen.image_range).cpu()
            bar.update(count)
    resized = f"resized from {height}×{width} to {shape[0]}×{shape[1]}"
    return Images(
        pixels,
        f"{n} samples of the generator {gen.name} (seed {seed})",
        terms or _terms(generator),
        generated=True,
        notes=(resized,) if shape != (height, width) else (),
    )


def _terms(generator: str | GeneratorAdapter) -> str:
    if not isinstance(generator, str) or generator not in available():
        return NOT_STATED
    entry = pretrained(generator)
    return f"the generator: {entry.licence}; it was trained on {entry.trained_on}"
