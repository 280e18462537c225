"""Source of a user's module whose factory makes a small generator."""

from __future__ import annotations

FACTORY = """
import torch, counterfactual_probe as cp

def make():
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.ConvTranspose2d(4, 7, 4), torch.nn.ReLU(),
                                 torch.nn.ConvTranspose2d(7, 3, 4, 2, 1), torch.nn.Tanh())
    return cp.wrap(module, lambda n, rng: torch.randn(n, 4, 1, 1, generator=rng), name="mine")
"""
