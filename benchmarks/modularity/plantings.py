"""Where the channels of a toy act: planted modules, or a continuum that has none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

SIDE, CHANNELS = 32, 48
CENTRES = np.array([[0.25, 0.3], [0.3, 0.75], [0.75, 0.5]])
CLOSE = np.array([[0.45, 0.45], [0.45, 0.56], [0.55, 0.5]])  # neighbours' blobs have a cosine of about 0.8
NARROW, WIDE = 0.07, 0.2
_MEAN = 0.05  # of every pattern


class Planting(NamedTuple):
    """Where channels act.

    Attributes:
        patterns: (channels, side, side) strength of each channel at each pixel.
        modules: (channels,) of each channel; None in a continuum.
    """

    patterns: Array
    modules: Labels | None


class Toy(NamedTuple):
    """How a toy is planted.

    Attributes:
        n_modules: None of a continuum.
        latent_of: channels of a module share a latent, as in Model 1 of S003; or each channel has its own; or they
            share one with channels of all modules, so that what is active together does not act together.
        in_place: whether channels are active where they act, as in a convolutional network; or they have no place, and
            weights after them say where they act, as in a dense layer.
    """

    plant: Callable[[np.random.Generator], Planting]
    n_modules: int | None
    latent_of: Literal["module", "channel", "all"] = "channel"
    in_place: bool = True


def blobs(places: Array, widths: Array) -> Array:
    """Gaussian bumps of equal mean, (channels, side, side); places and widths are shares of the side."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    squares = (y - places[:, 0, None, None]) ** 2 + (x - places[:, 1, None, None]) ** 2
    made = np.exp(-squares / (2 * widths[:, None, None] ** 2))
    return np.asarray(made * (_MEAN / made.mean((1, 2), keepdims=True)))


def sizes(rng: np.random.Generator) -> Array:
    return rng.uniform(0.1, 0.14, CHANNELS)


def around(centres: Array, chosen: Labels, rng: np.random.Generator) -> Array:
    return np.asarray(centres[chosen] + rng.normal(0, 0.03, (CHANNELS, 2)))


def three(rng: np.random.Generator) -> Planting:
    chosen = rng.integers(3, size=CHANNELS)
    places = around(CENTRES, chosen, rng)
    return Planting(blobs(places, sizes(rng)), chosen)


def unequal(rng: np.random.Generator) -> Planting:
    """Of about 34, 8 and 6 channels."""
    chosen = rng.choice(3, size=CHANNELS, p=[0.7, 0.17, 0.13])
    places = around(CENTRES, chosen, rng)
    return Planting(blobs(places, sizes(rng)), chosen)


def overlapping(rng: np.random.Generator) -> Planting:
    chosen = rng.integers(3, size=CHANNELS)
    places = around(CLOSE, chosen, rng)
    return Planting(blobs(places, sizes(rng)), chosen)


def two_scales(rng: np.random.Generator) -> Planting:
    """At each of two places a module that acts narrowly, and one that acts widely."""
    chosen = rng.integers(4, size=CHANNELS)
    places = around(CENTRES[:2], chosen // 2, rng)
    widths = np.where(chosen % 2 == 0, NARROW, WIDE) * rng.uniform(0.9, 1.1, CHANNELS)
    return Planting(blobs(places, widths), chosen)


def plane(rng: np.random.Generator) -> Planting:
    return Planting(blobs(rng.random((CHANNELS, 2)), sizes(rng)), None)


def line(rng: np.random.Generator) -> Planting:
    places = np.stack([np.full(CHANNELS, 0.5), rng.random(CHANNELS)], 1)
    return Planting(blobs(places, sizes(rng)), None)


def around_a_centre(rng: np.random.Generator) -> Planting:
    return Planting(blobs(0.5 + rng.normal(0, 0.18, (CHANNELS, 2)), sizes(rng)), None)


def one_place(_: np.random.Generator) -> Planting:
    return Planting(blobs(np.full((CHANNELS, 2), 0.5), np.full(CHANNELS, 0.12)), None)


def random_sizes(rng: np.random.Generator) -> Planting:
    widths = np.exp(rng.uniform(np.log(0.04), np.log(0.3), CHANNELS))
    return Planting(blobs(np.full((CHANNELS, 2), 0.5), widths), None)


def random_pixels(rng: np.random.Generator) -> Planting:
    """Every channel has a random strength at each pixel, and so no place."""
    strengths = rng.exponential(size=(CHANNELS, SIDE, SIDE))
    return Planting(strengths * (_MEAN / strengths.mean((1, 2), keepdims=True)), None)


# A toy's random numbers follow from its place in this list: new ones go to the end.
TOYS = {
    "three modules": Toy(three, 3, "module"),
    "three unequal modules": Toy(unequal, 3, "module"),
    "at random in the plane": Toy(plane, None),
    "at random on a line": Toy(line, None),
    "around a centre": Toy(around_a_centre, None),
    "all at one place": Toy(one_place, None),
    "of random sizes": Toy(random_sizes, None),
    "three overlapping modules": Toy(overlapping, 3, "module"),
    "four modules at two scales": Toy(two_scales, 4, "module"),
    "three modules, a latent for each channel": Toy(three, 3, "channel"),
    "three modules, latents of all of them": Toy(three, 3, "all", in_place=False),
    "at random pixels": Toy(random_pixels, None),
}


def planted(name: str, seed: int) -> tuple[Planting, np.random.Generator]:
    """The planting of a toy, and the random generator that goes on where it ended."""
    rng = np.random.default_rng([seed, list(TOYS).index(name)])
    return TOYS[name].plant(rng), rng
