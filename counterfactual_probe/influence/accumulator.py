"""Influence maps and their spread, accumulated one pair after the other, in fixed memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from math import sqrt

import torch
from torch import Tensor

from .arrays import MapArrays


class MapAccumulator:
    """Welford's running mean and squared deviations, in the arrays that will be returned.

    Pairs are added one at a time and in order, so that the batch size changes no sum. Unit sets may stop at different
    numbers of pairs. With blocks, pair i is also added to the sum of block i mod blocks, so that blocks hold equally
    many pairs wherever a set stops.
    """

    def __init__(self, arrays: MapArrays) -> None:
        self.arrays = arrays

    def add(self, pair: int, sets: Sequence[int], maps: Tensor, energy: Tensor | None = None) -> None:
        """Add pair number ``pair``'s maps (sets, H, W) of these unit sets, given in rising order, and their energy
        (sets, components) if it is wanted: in the leading components and, behind these, in those of resampled pairs."""
        arrays = self.arrays
        first, last = sets[0], sets[-1] + 1
        # A slice where possible: it updates in place, without copies.
        index: slice | list[int] = slice(first, last) if last - first == len(sets) else list(sets)
        n = pair + 1
        arrays.n_pairs[index] = n
        _update(arrays.maps, arrays.standard_error, index, maps, n)
        influence = maps.mean(tuple(range(1, maps.dim())), dtype=torch.float64)
        _update(arrays.influence, arrays.influence_standard_error, index, influence, n)
        arrays.zero_maps[index] += influence == 0
        _add(arrays.block_sums, pair, index, maps)
        if arrays.normalised is not None:
            norms = maps.flatten(1).norm(dim=1)
            unit = maps / _of_rows(norms.clamp_min(torch.finfo(maps.dtype).tiny), maps)
            arrays.normalised[index] += unit
            _add(arrays.normalised_block_sums, pair, index, unit)
        if arrays.energy is not None and energy is not None:
            number = arrays.energy.shape[1]
            leading, resampled = energy[:, :number], energy[:, number:]
            arrays.energy[index] += leading
            _add(arrays.energy_block_sums, pair, index, leading)
            _add(arrays.resampled_energy_block_sums, pair, index, resampled.reshape(len(energy), -1, number))

    def relative_errors(self, chosen: Sequence[int]) -> list[float]:
        """‖standard error‖₂ / ‖map‖₂ of unit sets; infinite while one has changed nothing, since it then costs
        nothing to go on."""
        arrays, counts = self.arrays, self.arrays.n_pairs.tolist()
        sums = [arrays.standard_error[k].double().sum() for k in chosen]
        norms = [arrays.maps[k].double().norm() for k in chosen]
        # A device is waited for once, not for each set.
        found = torch.stack([*sums, *norms]).tolist() if chosen else []
        errors = []
        for k, total, norm in zip(chosen, found, found[len(chosen) :], strict=False):
            n = counts[k]
            errors.append(float("inf") if n < 2 or norm == 0 else sqrt(total / (n * (n - 1))) / norm)
        return errors

    def finish(self) -> MapArrays:
        """The arrays of :class:`InfluenceMaps`, on the CPU; nothing can be added afterwards."""
        arrays, n = self.arrays, self.arrays.n_pairs
        # The squared deviations become standard errors in place: (Σ(x − x̄)² / (n − 1) / n)^½.
        divisor = (n * (n - 1)).double()
        divisor[divisor == 0] = float("nan")
        changing = (n - arrays.zero_maps).clamp_min(1)
        if arrays.normalised is not None:
            arrays.normalised.div_(_of_rows(changing, arrays.normalised))
        if arrays.energy is not None:
            arrays.energy.div_(changing[:, None])
        # A product of one type: a quotient of two would be five times as slow.
        arrays.standard_error.mul_(_of_rows((1 / divisor).float(), arrays.standard_error)).sqrt_()
        return dataclasses.replace(
            arrays,
            influence=arrays.influence.float(),
            influence_standard_error=arrays.influence_standard_error.div(divisor).sqrt().float(),
        ).cpu()


def _of_rows(values: Tensor, maps: Tensor) -> Tensor:
    """A value for each row of maps, as a factor of them."""
    return values.view(-1, *[1] * (maps.dim() - 1))


def _add(block_sums: Tensor | None, pair: int, index: slice | list[int], values: Tensor) -> None:
    """Add the values of a pair to the sums of its block, if there are blocks."""
    if block_sums is not None:
        block_sums[index, pair % block_sums.shape[1]] += values


def _update(mean: Tensor, deviation: Tensor, index: slice | list[int], values: Tensor, n: int) -> None:
    """Welford's update of mean and squared deviations by the n-th values."""
    if n == 1:
        mean[index] = values.to(mean)
        return
    old, spread = mean[index], deviation[index]
    before = values - old
    old.add_(before, alpha=1 / n)
    spread.addcmul_(before, values - old)
    if not isinstance(index, slice):
        mean[index], deviation[index] = old, spread
