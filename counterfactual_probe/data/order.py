"""In which order images are seen: from (seed, epoch) alone, so that a run can go on anywhere."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..generator.adapter import stream_seed

ORDER = 5  # a stream of random numbers of its own


def epoch_order(n: int, *, seed: int, epoch: int) -> Tensor:
    """A permutation of n images, another one each epoch."""
    rng = np.random.default_rng(stream_seed(seed, ORDER, epoch))
    return torch.from_numpy(rng.permutation(n))
