"""The losses of S004's autoencoders."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def cross_entropy(logits: Tensor, images: Tensor) -> Tensor:
    """Cross-entropy of images with values 0…1, summed over pixels and colours; mean over images."""
    return F.binary_cross_entropy_with_logits(logits.float(), images.float(), reduction="sum") / len(images)


def divergence(mean: Tensor, log_deviation: Tensor) -> Tensor:
    """KL of a Gaussian posterior from N(0, 1), summed over dimensions: ½ Σ (μ² + σ² − log σ² − 1); mean over images."""
    variance = (2 * log_deviation).exp()
    return (mean.square() + variance - 2 * log_deviation - 1).sum(1).mean() / 2


def authors_divergence(mean: Tensor, log_deviation: Tensor) -> Tensor:
    """The KL in the authors' code, with σ instead of σ²: ½ Σ (μ² + σ − log σ − 1).

    Its minimum is where that of the correct KL is, but its gradient with respect to σ is about half as large.
    """
    return (mean.square() + log_deviation.exp() - log_deviation - 1).sum(1).mean() / 2


def discrepancy(codes: Tensor, prior: Tensor) -> Tensor:
    """Maximum mean discrepancy of codes and samples of the prior, with kernel C / (C + d²), C the number of dimensions.

    Pairs of a code with itself are left out (Tolstikhin et al. 2018, algorithm 2).
    """
    scale = codes.shape[1]

    def kernel(squared: Tensor) -> Tensor:
        return (scale / (scale + squared)).mean()

    def within(values: Tensor) -> Tensor:
        return kernel(_squared(values, values)[~torch.eye(len(values), dtype=torch.bool, device=values.device)])

    return within(prior) + within(codes) - 2 * kernel(_squared(codes, prior))


def _squared(one: Tensor, two: Tensor) -> Tensor:
    # Not cdist, whose gradient is NaN at a distance of 0.
    return (one[:, None] - two[None]).square().sum(2)
