"""How realistic single images are, judged by the nearest neighbours of reference images in feature space.

T. Kynkäänniemi, T. Karras, S. Laine, J. Lehtinen, T. Aila: Improved precision and recall metric for assessing
generative models, NeurIPS 2019. Each reference image is the centre of a ball that reaches to its k-th neighbour.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..base.errors import ProbeError, whole
from .frechet import as_features

Floats: TypeAlias = npt.NDArray[np.float64]
NEIGHBOURS = 3
_ROWS = 128  # of a block of distances


def inside(
    features: Tensor | npt.ArrayLike, reference: Tensor | npt.ArrayLike, *, neighbours: int = NEIGHBOURS
) -> npt.NDArray[np.bool_]:
    """(n,) whether each image lies in the ball of any reference image; the mean is their precision (eq. 1 and 2).

    >>> inside([[0.1], [9.0]], [[0.0], [1.0], [2.0], [3.0]]).tolist()
    [True, False]
    """
    values, others = _matched_features(features, reference, neighbours)
    radii = _radii(others, neighbours)
    return np.concatenate([(block <= radii).any(1) for block in _distance_blocks(values, others)])


def reference_error(
    features: Tensor | npt.ArrayLike,
    reference: Tensor | npt.ArrayLike,
    *,
    neighbours: int = NEIGHBOURS,
    draws: int = 20,
    seed: int = 0,
) -> float:
    """The standard error of the precision for another sample of reference images: that of its values for random halves.

    >>> reference_error([[0.1], [9.0]], [[0.0], [1.0], [2.0], [3.0], [9.5]], neighbours=1) > 0
    True

    For a mean, the values of halves without replacement spread as much as those of new samples do. A bootstrap would
    put copies of a reference image at a distance of 0 from it, and shrink its ball. NaN of fewer than twice as many
    images as a ball needs.
    """
    values, others = _matched_features(features, reference, neighbours)
    half = len(others) // 2
    if half <= neighbours:
        return float("nan")
    rng = np.random.default_rng([seed, len(others)])
    halves = [np.sort(rng.permutation(len(others))[:half]) for _ in range(draws)]
    radii = [_radii(others[chosen], neighbours) for chosen in halves]
    counts = np.zeros(draws)
    for block in _distance_blocks(values, others):
        counts += [(block[:, chosen] <= radius).any(1).sum() for chosen, radius in zip(halves, radii, strict=True)]
    return float((counts / len(values)).std(ddof=1))


def realism(
    features: Tensor | npt.ArrayLike, reference: Tensor | npt.ArrayLike, *, neighbours: int = NEIGHBOURS
) -> Floats:
    """(n,) the largest ratio of a reference image's radius to its distance (eq. 3): at least 1 inside a ball.

    >>> realism([[4.0], [20.0]], [[0.0], [1.0], [2.0], [3.0]], neighbours=1).round(3).tolist()
    [1.0, 0.059]

    Balls above the median radius are left out, as in the paper: where references are rare, balls are too large.
    """
    values, others = _matched_features(features, reference, neighbours)
    radii = _radii(others, neighbours)
    kept = radii <= np.median(radii)
    ratios = []
    for block in _distance_blocks(values, others[kept]):
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = radii[kept] / block
        ratio[np.isnan(ratio)] = np.inf  # a reference image itself, with all its neighbours in one place
        ratios.append(ratio.max(1))
    return np.concatenate(ratios)


def _matched_features(
    features: Tensor | npt.ArrayLike, reference: Tensor | npt.ArrayLike, neighbours: int
) -> tuple[Floats, Floats]:
    whole(neighbours, "neighbours", 1)
    values, others = as_features(features, "the features"), as_features(reference, "the reference's features")
    if values.shape[1] != others.shape[1]:
        raise ProbeError(
            f"the features are {values.shape[1]} and the reference's {others.shape[1]}; give features of one extractor"
        )
    if len(others) <= neighbours:
        raise ProbeError(
            f"{neighbours} neighbours asked among {len(others)} reference images; give at least {neighbours + 1} images"
        )
    return values, others


def _radii(reference: Floats, neighbours: int) -> Floats:
    """(n,) distance of each reference image to its k-th neighbour, itself left out."""
    blocks = _distance_blocks(reference, reference)
    return np.concatenate([np.partition(block, neighbours, 1)[:, neighbours] for block in blocks])


def _distance_blocks(rows: Floats, columns: Floats) -> Iterator[Floats]:
    """Blocks of rows of Euclidean distances, without the matrix-product shortcut, which makes equal points differ."""
    others = torch.from_numpy(columns)
    for start in range(0, len(rows), _ROWS):
        block = torch.from_numpy(rows[start : start + _ROWS])
        yield torch.cdist(block, others, compute_mode="donot_use_mm_for_euclid_dist").numpy()
