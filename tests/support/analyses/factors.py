"""Factors and codes whose metrics are known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.fft import dct

from counterfactual_probe import metrics

SIZES = (4, 3, 5)


# All but DCI, which takes seconds.
QUICK: list[Callable[..., metrics.Score]] = [
    metrics.mig, metrics.modularity, metrics.irs, metrics.sap, metrics.explicitness,
]  # fmt: skip


def drawn(n: int = 600, seed: int = 0, sizes: tuple[int, ...] = SIZES) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(0, size, n) for size in sizes], axis=1)


FACTORS, TEST = drawn(), drawn(300, seed=1)


def noise(n: int, columns: int, seed: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, columns))


def codes_of(kind: str, factors: np.ndarray) -> np.ndarray:
    n, f = factors.shape
    return {
        "perfect": lambda: factors * 1.0,
        "noisy": lambda: factors + 0.05 * noise(n, f),
        "rotated": lambda: factors @ dct(np.eye(f), norm="ortho"),
        "random": lambda: noise(n, f),
        "redundant": lambda: np.concatenate([factors, factors], axis=1) * 1.0,
        "constant": lambda: np.full((n, f), 0.3),
        "dead": lambda: np.concatenate([factors * 1.0, np.full((n, 1), 0.3)], axis=1),
    }[kind]()
