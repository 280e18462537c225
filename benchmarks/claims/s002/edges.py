"""S002 §3.1, Fig. 1: kernels of a pattern at two scales are independent, and those of a long edge are not."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

import counterfactual_probe as cp

from ..row import Line, Numbers, Row, Study
from ..sampled import FAILS, HOLDS, Sampled

SEEDS, KERNELS = 5, 64
SIDE = 3  # of the figure's kernels
EDGES = {
    "vertical": np.outer(np.ones(SIDE), [0, 1, 0]),
    "horizontal": np.outer([0, 1, 0], np.ones(SIDE)),
    "diagonal": np.eye(SIDE),
    "other diagonal": np.eye(SIDE)[::-1].copy(),
}


def ratios(kernels: torch.Tensor) -> torch.Tensor:
    """(n, n) ratio of each kernel (n, side, side) with each in the next layer, upsampled by 2 between them."""
    n = len(kernels)
    first, second = nn.ConvTranspose2d(1, n, SIDE, 2, 1), nn.ConvTranspose2d(n, n, SIDE, 2, 1)
    with torch.no_grad():
        first.weight.copy_(kernels[None])
        second.weight.copy_(kernels[None].expand(n, n, SIDE, SIDE))
    sd = cp.SpectralDependency(nn.Sequential(first, second), example=torch.zeros(1, 1, 4, 4), name="edges")
    (pair,) = sd.pairs()
    return sd.measure(pair.earlier, pair.later).ratio[0]


def measure() -> Numbers:
    """Ratios of edges with edges, and of random kernels with edges and with each other."""
    edges = torch.from_numpy(np.stack(list(EDGES.values()))).float()
    found = ratios(edges)
    random = []
    for seed in range(SEEDS):
        drawn = torch.randn(KERNELS, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
        random.append(ratios(drawn).flatten().tolist())
    aligned = torch.diagonal(found)
    return {
        "seeds": list(range(SEEDS)),
        "edges": list(EDGES),
        "ratios": found.tolist(),
        "random_mean": [float(np.mean(values)) for values in random],
        "random_above": [[float(np.mean(np.asarray(values) >= one)) for one in aligned.tolist()] for values in random],
        "kernels": KERNELS,
    }


def aligned(numbers: Numbers) -> list[Line]:
    found = np.asarray(numbers["ratios"])
    own, others = np.diag(found), found[~np.eye(len(found), dtype=bool)]
    rare = Sampled.of(float(np.mean(shares)) for shares in numbers["random_above"])
    mean = Sampled.of(numbers["random_mean"])
    holds = own.min() > others.max() and abs(others - 1).max() < abs(own - 1).min()
    text = (
        f"ratio of an edge of three pixels with the same edge one layer up: "
        f"{', '.join(f'{value:.2f}' for value in own)} ({', '.join(numbers['edges'])}); with the other edges "
        f"{others.min():.2f} to {others.max():.2f}. Random kernels have {mean:.3f}, and "
        f"{100 * rare.mean:.1f} ± {100 * rare.margin:.1f} % of them a ratio as large as aligned edges"
    )
    repeats = f"kernels of 3×3, stride 2; {len(numbers['seeds'])} samples of {numbers['kernels']} random kernels"
    return [Line(repeats, HOLDS if holds else FAILS, text)]


STUDY = Study(
    "edges",
    measure,
    (Row("§3.1, Fig. 1: a long edge needs aligned kernels in two layers, whose ratio is not 1", aligned),),
    repeats=SEEDS,
)
