"""Spectral dependency ratios in closed form, by autocorrelations (conventions 15 and 16).

The mean of |ĝ|²·|ĥ|² over all frequencies is Σ_a r_g[a]·r_h[a] by Parseval, and kernels are small: few lags have
both autocorrelations different from zero. No grid of frequencies is needed, and nothing is rounded but the sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TypeAlias

import torch
from torch import Tensor

Size: TypeAlias = tuple[int, int]


def half_plane(reach: Size) -> list[Size]:
    """Lags up to ``reach``, one of each pair (a, −a), of which autocorrelations are equal; (0, 0) first."""
    return [(y, x) for y, x in product(range(reach[0] + 1), range(-reach[1], reach[1] + 1)) if y > 0 or x >= 0]


def autocorrelation(values: Tensor, lags: list[Size]) -> Tensor:
    """Σ v[p]·v[p + a] over positions for every lag a: (…, H, W) to (…, lags); zero beyond the border."""
    height, width = values.shape[-2:]
    found = []
    for y, x in lags:
        if y >= height or abs(x) >= width:
            found.append(values.new_zeros(values.shape[:-2]))
            continue
        left, right = slice(max(0, -x), width - max(0, x)), slice(max(0, x), width - max(0, -x))
        found.append((values[..., : height - y, left] * values[..., y:, right]).sum((-2, -1)))
    return torch.stack(found, -1)


@dataclass(frozen=True)
class Overlap:
    """The lags at which a cause's and a kernel's autocorrelation both count.

    Attributes:
        cause: lags of the cause (a kernel or an activation map) that are needed.
        later: lags of the later kernel, in its own pixels, (0, 0) first.
        mixing: (cause, later): what the cause's autocorrelation, spread by ``up`` and convolved with the
            interpolation between, is at the later kernel's lags.
    """

    cause: list[Size]
    later: list[Size]
    mixing: Tensor

    @property
    def trivial(self) -> bool:
        """Whether only the energies meet: the ratio is exactly 1 (conventions 17)."""
        return len(self.later) == 1

    @property
    def weights(self) -> Tensor:
        """Every lag but the first stands for its mirror image, too."""
        return torch.tensor([1.0] + [2.0] * (len(self.later) - 1), dtype=torch.float64)

    def cause_spectrum(self, cause: Tensor) -> Tensor:
        """The cause's autocorrelation (…, cause lags) at the later kernel's lags, over its power; NaN where dead."""
        mixed = cause @ self.mixing.to(cause)
        return mixed / mixed[..., :1]

    def later_spectrum(self, later: Tensor) -> Tensor:
        """The same of the later kernel's (…, later lags), with the weights of the sum."""
        return later / later[..., :1] * self.weights.to(later)


def overlap(cause: Size, cause_step: Size, later: Size, later_step: Size, between: Tensor | None = None) -> Overlap:
    """Where autocorrelations of sizes ``cause`` and ``later`` meet on the finest grid.

    ``cause_step`` and ``later_step`` are the distances there of their neighbouring entries: stride times dilation.
    ``between`` is a kernel on the finest grid that belongs to the cause: an interpolation's, or a pooling's.
    """
    blur = torch.ones(1, 1, dtype=torch.float64) if between is None else between.double()
    mirrored = half_plane((blur.shape[0] - 1, blur.shape[1] - 1))
    spread: dict[Size, float] = dict(zip(mirrored, autocorrelation(blur, mirrored).tolist(), strict=True))

    def at(y: int, x: int) -> float:
        return spread.get((y, x), spread.get((-y, -x), 0.0))

    lags = half_plane((later[0] - 1, later[1] - 1))
    # Beyond this no lag of the cause comes near one of the later kernel's.
    reach = [min(cause[i] - 1, (later_step[i] * (later[i] - 1) + blur.shape[i] - 1) // cause_step[i]) for i in range(2)]
    causes = half_plane((reach[0], reach[1]))
    rows = []
    for n in causes:
        there = n[0] * cause_step[0], n[1] * cause_step[1]
        row = []
        for m in lags:
            a = m[0] * later_step[0], m[1] * later_step[1]
            value = at(a[0] - there[0], a[1] - there[1])
            row.append(value + at(a[0] + there[0], a[1] + there[1]) if n != (0, 0) else value)
        rows.append(row)
    mixing = torch.tensor(rows, dtype=torch.float64)
    used, needed = (mixing != 0).any(0), (mixing != 0).any(1)
    return Overlap(
        [lag for lag, kept in zip(causes, needed.tolist(), strict=True) if kept],
        [lag for lag, kept in zip(lags, used.tolist(), strict=True) if kept],
        mixing[needed][:, used],
    )
