"""The order of training images depends on (seed, epoch) alone, so that a run can be resumed at any step."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..generator.latents import stream_seed

ORDER = 5  # random stream


def epoch_order(n: int, *, seed: int, epoch: int) -> Tensor:
    """A permutation of n images, different in each epoch."""
    rng = np.random.default_rng(stream_seed(seed, ORDER, epoch))
    return torch.from_numpy(rng.permutation(n))
