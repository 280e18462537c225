"""Running means of influence maps and their spread, one pair after the other, in fixed memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class RunningMaps:
    """Welford's running mean and squared deviations, in the arrays that will be returned.

    Pairs are added one at a time and in order, so that batch size changes no sum. Unit sets may
    stop at different numbers of pairs. With ``blocks``, pair i is also added to the sum of block
    i mod blocks, so that blocks hold equally many pairs wherever a set stops.
    """

    def __init__(
        self,
        sets: int,
        height: int,
        width: int,
        device: torch.device,
        *,
        normalise: bool = False,
        blocks: int = 0,
        components: Tensor | None = None,
    ) -> None:
        def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(*shape, dtype=dtype, device=device)

        self.mean, self.deviation = zeros(sets, height, width), zeros(sets, height, width)
        self.influence = zeros(sets, dtype=torch.float64)
        self.influence_deviation = zeros(sets, dtype=torch.float64)
        self.zero_maps, self.n_pairs = zeros(sets, dtype=torch.int64), zeros(sets, dtype=torch.int64)
        self.normalised = zeros(sets, height, width) if normalise else None
        self.block_sums = zeros(sets, blocks, height, width) if blocks else None
        self.normalised_block_sums = zeros(sets, blocks, height, width) if blocks and normalise else None
        self.components = components
        self.energy = None if components is None else zeros(sets, len(components))
        self.energy_block_sums = zeros(sets, blocks, len(components)) if blocks and components is not None else None

    def add(self, pair: int, sets: Sequence[int], maps: Tensor, energy: Tensor | None = None) -> None:
        """Add pair number ``pair``'s maps (sets, H, W) of these unit sets, given in rising order, and their energy
        (sets, components) if it is wanted."""
        first, last = sets[0], sets[-1] + 1
        # A slice where possible: it updates in place, without copies.
        index: slice | list[int] = slice(first, last) if last - first == len(sets) else list(sets)
        n = pair + 1
        self.n_pairs[index] = n
        _update(self.mean, self.deviation, index, maps, n)
        influence = maps.mean((1, 2), dtype=torch.float64)
        _update(self.influence, self.influence_deviation, index, influence, n)
        self.zero_maps[index] += influence == 0
        if self.block_sums is not None:
            block = pair % self.block_sums.shape[1]
            self.block_sums[index, block] += maps
        if self.normalised is not None:
            norms = maps.flatten(1).norm(dim=1)
            unit = maps / norms.clamp_min(torch.finfo(maps.dtype).tiny)[:, None, None]
            self.normalised[index] += unit
            if self.normalised_block_sums is not None:
                self.normalised_block_sums[index, block] += unit
        if self.energy is not None and energy is not None:
            self.energy[index] += energy
            if self.energy_block_sums is not None:
                self.energy_block_sums[index, block] += energy

    def relative_error(self, chosen: int) -> float:
        """‖standard error‖₂ / ‖map‖₂ of a unit set; infinite while it has changed nothing, which costs
        nothing to go on with."""
        n, norm = int(self.n_pairs[chosen]), float(self.mean[chosen].double().norm())
        if n < 2 or norm == 0:
            return float("inf")
        return float((self.deviation[chosen].double().sum() / (n * (n - 1))).sqrt()) / norm

    def state(self) -> dict[str, Tensor]:
        """The arrays as they are, to be written down and put back by :meth:`restore`."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    def restore(self, state: dict[str, Tensor]) -> None:
        for name, value in state.items():
            getattr(self, name).copy_(value)

    def result(self) -> dict[str, Tensor | None]:
        """The arrays of :class:`InfluenceMaps`, on the CPU; nothing can be added afterwards."""
        # The squared deviations become standard errors in place: (Σ(x − x̄)² / (n − 1) / n)^½.
        divisor = (self.n_pairs * (self.n_pairs - 1)).double()
        divisor[divisor == 0] = float("nan")
        alive = (self.n_pairs - self.zero_maps).clamp_min(1)
        if self.normalised is not None:
            self.normalised /= alive[:, None, None]
        if self.energy is not None:
            self.energy /= alive[:, None]
        found: dict[str, Any] = {
            "maps": self.mean,
            # A product of one type: a quotient of two would be five times as slow.
            "standard_error": self.deviation.mul_((1 / divisor).float()[:, None, None]).sqrt_(),
            "influence": self.influence.float(),
            "influence_standard_error": self.influence_deviation.div(divisor).sqrt().float(),
            "n_pairs": self.n_pairs,
            "zero_maps": self.zero_maps,
            "normalised": self.normalised,
            "block_sums": self.block_sums,
            "normalised_block_sums": self.normalised_block_sums,
            "components": self.components,
            "energy": self.energy,
            "energy_block_sums": self.energy_block_sums,
        }
        return {name: None if value is None else value.cpu() for name, value in found.items()}


def _update(mean: Tensor, deviation: Tensor, index: slice | list[int], value: Tensor, n: int) -> None:
    if n == 1:
        mean[index] = value.to(mean)
        return
    old, spread = mean[index], deviation[index]
    before = value - old
    old.add_(before, alpha=1 / n)
    spread.addcmul_(before, value - old)
    if not isinstance(index, slice):
        mean[index], deviation[index] = old, spread
