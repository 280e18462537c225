"""Two partitions of the pixels of images, compared: intersection over union and adjusted Rand index."""

from __future__ import annotations

import numpy as np

from ..modules.clustering import NO_MODULE, Array, Floats, Labels, assign


def strongest(values: Floats) -> Labels:
    """(…, pixels) argmax over K at each pixel (lowest index on ties); −1 where no value is positive."""
    return np.where(values.max(-2) > 0, values.argmax(-2), NO_MODULE).astype(np.int64)


def contingency_tables(one: Labels, two: Labels, k: int, p: int) -> Array:
    """(n, k + 1, p + 1) contingency tables: pixels by label in both partitions; −1 is the last row or column.

    Labels are (n, pixels), or (1, pixels) for the same partition of all images.
    """
    images = max(len(one), len(two))
    cells = (one % (k + 1)) * (p + 1) + two % (p + 1)  # Python's modulo makes −1 the last
    numbered = np.arange(images)[:, None] * (k + 1) * (p + 1) + cells
    counts = np.bincount(numbered.ravel(), minlength=images * (k + 1) * (p + 1))
    return counts.reshape(images, k + 1, p + 1).astype(np.float64)


def overlaps(counts: Array) -> Array:
    """(K, P) intersection over union, mean over the images that show the part."""
    shared = counts[:, :-1, :-1]
    first, second = counts.sum(2)[:, :-1, None], counts.sum(1)[:, None, :-1]
    union = first + second - shared
    shown = np.broadcast_to(second > 0, shared.shape)
    iou = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return np.asarray(iou.sum(0, where=shown) / shown.sum(0))


def match_parts(iou: Array) -> tuple[Labels, float]:
    """Modules and parts matched one to one for the largest sum of IoU, and that sum over the number of parts."""
    k, p = iou.shape
    pairs = np.stack([np.arange(k), assign(iou)], 1) if k <= p else np.stack([assign(iou.T), np.arange(p)], 1)
    return pairs, float(iou[tuple(pairs.T)].sum() / p)


def adjusted_rand(counts: Array) -> Array:
    """(n,) adjusted Rand index (Hubert and Arabie 1985) of each table; 1 if both partitions are a single set."""

    def pairs(numbers: Array) -> Array:
        return np.asarray(numbers * (numbers - 1) / 2)

    together = pairs(counts).sum((1, 2))
    first, second = pairs(counts.sum(2)).sum(1), pairs(counts.sum(1)).sum(1)
    expected = first * second / pairs(counts.sum((1, 2)))
    largest = (first + second) / 2
    varies = largest > expected
    return np.asarray(np.divide(together - expected, largest - expected, out=np.ones_like(together), where=varies))
