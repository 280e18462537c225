"""Fréchet distance between two sets of features (Heusel et al. 2017; Dowson and Landau 1982)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ..base.errors import ProbeError
from ..base.formats.elsewhere import plain_array

Floats: TypeAlias = npt.NDArray[np.float64]


class FewSamples(UserWarning):
    """There are no more samples than features."""


def frechet_distance(features_a: Tensor | npt.ArrayLike, features_b: Tensor | npt.ArrayLike) -> float:
    """Distance between the normal distributions with the means and covariances of the two sets; squared, as is usual.

    >>> import numpy as np
    >>> a = np.random.default_rng(0).standard_normal((100, 3))
    >>> round(frechet_distance(a, a + 2), 6)
    12.0

    |mean a − mean b|² + tr(A + B − 2 (A B)^½), with unbiased covariances A and B, singular or not (conventions 26).

    Args:
        features_a, features_b: (n, features), or (n,) of a single one; they may differ in n.

    Raises:
        ProbeError: other shapes, different numbers of features, a single sample, a NaN.

    Warns:
        FewSamples: no more samples than features. The distance between these samples is still right, but larger than
            that between the distributions they come from.
    """
    a, b = as_features(features_a, "features_a"), as_features(features_b, "features_b")
    if a.shape[1] != b.shape[1]:
        raise ProbeError(
            f"features_a hold {a.shape[1]} features and features_b {b.shape[1]}; give features of one extractor"
        )
    if sentence := few_samples(min(len(a), len(b)), a.shape[1]):
        warnings.warn(sentence, FewSamples, stacklevel=2)
    return Gaussian.of(a).distance(Gaussian.of(b))


@dataclass(frozen=True)
class Gaussian:
    """Mean and factor of a set of features: F with FᵀF = covariance, which is all that the distance needs."""

    mean: Floats
    factor: Floats

    @classmethod
    def of(cls, features: Floats) -> Self:
        mean = features.mean(0)
        # The triangular factor of the samples, not the square root of their covariance: a root loses twice the digits,
        # and amplifies rounding where the covariance is singular.
        factor = np.linalg.qr(features - mean, mode="r") / np.sqrt(len(features) - 1)
        return cls(mean, factor)

    def distance(self, other: Gaussian) -> float:
        """The Fréchet distance; tr (A B)^½ is the sum of the singular values of the product of the factors."""
        common = np.linalg.svd(self.factor @ other.factor.T, compute_uv=False).sum()
        spread = (self.factor**2).sum() + (other.factor**2).sum() - 2 * common
        return max(float(((self.mean - other.mean) ** 2).sum() + spread), 0.0)


def as_features(given: Any, what: str) -> Floats:
    """Features as a matrix (n, features) of float64, checked."""
    values = plain_array(given, what, "(n, features)").astype(np.float64)
    if values.ndim == 1:
        values = values[:, None]
    if values.ndim != 2 or values.shape[1] == 0:
        raise ProbeError(f"{what} have shape {values.shape}; give (n, features)")
    if len(values) < 2:
        raise ProbeError(f"{what} hold {len(values)} sample, which has no covariance; give at least 2")
    if not np.isfinite(values).all():
        raise ProbeError(f"{what} hold NaN or infinite values; leave those samples out")
    return values


def few_samples(n: int, features: int) -> str | None:
    """A sentence if samples are too few for their number of features."""
    if n > features:
        return None
    return (
        f"{n} samples of {features} features are few: their covariance is singular, and their Fréchet distance larger "
        f"than that of the distribution they come from; give at least {features + 1}, and equally many of all that you "
        "compare"
    )
