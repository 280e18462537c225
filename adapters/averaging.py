"""Averages of weights over the steps of a training, which make better images than the weights of any one step."""

from __future__ import annotations

import torch
from torch import nn

from counterfactual_probe.base.errors import ProbeError


def follow(average: nn.Module, module: nn.Module, decay: float) -> None:
    """Move an average of weights towards those of now; buffers are taken as they are."""
    with torch.no_grad():
        torch._foreach_lerp_(list(average.parameters()), list(module.parameters()), 1 - decay)
        for mine, its in zip(average.buffers(), module.buffers(), strict=True):
            mine.copy_(its)


def require_decay(decay: float) -> None:
    """Raise a ProbeError if weights would never enter the average, or leave it before they have."""
    if not isinstance(decay, (int, float)) or isinstance(decay, bool) or not 0 <= decay < 1:
        raise ProbeError(f"average is {decay!r}; give a number from 0 to below 1")


def settling(most: float, number: int) -> float:
    """The decay of an average in this step, counted from 0: it would be one of the first weights for long otherwise."""
    return min(most, (1 + number) / (10 + number))
