"""The arrays of influence maps: named here once, for accumulator, checkpoint, ranks and result."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..distributed.exchange import Exchange

# Names in checkpoint files, where they differ: format 1 calls the arrays what they are before the last pair.
_IN_CHECKPOINTS = {"maps": "mean", "standard_error": "deviation", "influence_standard_error": "influence_deviation"}

# Arrays that do not have a row for each unit set, and are the same on all ranks.
SHARED = ("components", "resampled_components")


class Components(NamedTuple):
    """Principal components of what hybrids change.

    Attributes:
        leading: (components, C, h, w).
        resampled: (resamples, components, C, h, w) of random halves of the pairs: how another sample's may differ.
    """

    leading: Tensor
    resampled: Tensor | None = None

    @property
    def stacked(self) -> Tensor:
        """(1 + resamples) × components in one tensor, the leading ones first."""
        return self.leading if self.resampled is None else torch.cat([self.leading, self.resampled.flatten(0, 1)])


@dataclass(frozen=True, eq=False)
class MapArrays:
    """One row for each unit set in every array but ``components``; :class:`InfluenceMaps` says what each holds.

    While pairs are being added, ``standard_error`` and ``influence_standard_error`` hold sums of squared deviations,
    ``normalised`` and ``energy`` sums over pairs, and ``influence`` is float64. What is not asked for is None.
    """

    maps: Tensor
    standard_error: Tensor
    influence: Tensor
    influence_standard_error: Tensor
    n_pairs: Tensor
    zero_maps: Tensor
    _: KW_ONLY
    normalised: Tensor | None = None
    block_sums: Tensor | None = None
    normalised_block_sums: Tensor | None = None
    components: Tensor | None = None
    energy: Tensor | None = None
    energy_block_sums: Tensor | None = None
    resampled_components: Tensor | None = None
    resampled_energy_block_sums: Tensor | None = None

    @classmethod
    def zeros(
        cls,
        sets: int,
        size: tuple[int, ...],
        device: torch.device,
        *,
        normalise: bool = False,
        blocks: int = 0,
        components: Components | None = None,
    ) -> MapArrays:
        """Before the first pair; ``components`` are on the device."""

        def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(sets, *shape, dtype=dtype, device=device)

        shared = None if components is None else len(components.leading)
        resampled = None if components is None else components.resampled
        return cls(
            zeros(*size),
            zeros(*size),
            zeros(dtype=torch.float64),
            zeros(dtype=torch.float64),
            n_pairs=zeros(dtype=torch.int64),
            zero_maps=zeros(dtype=torch.int64),
            normalised=zeros(*size) if normalise else None,
            block_sums=zeros(blocks, *size) if blocks else None,
            normalised_block_sums=zeros(blocks, *size) if blocks and normalise else None,
            components=None if components is None else components.leading.to(device),
            energy=None if shared is None else zeros(shared),
            energy_block_sums=zeros(blocks, shared) if blocks and shared is not None else None,
            resampled_components=None if resampled is None else resampled.to(device),
            resampled_energy_block_sums=(
                zeros(blocks, *resampled.shape[:2]) if blocks and resampled is not None else None
            ),
        )

    @property
    def all_components(self) -> Components | None:
        """The leading components, and those of resampled pairs if there are any."""
        return None if self.components is None else Components(self.components, self.resampled_components)

    def tensors(self) -> dict[str, Tensor]:
        """Those that there are, by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    def state(self) -> dict[str, Tensor]:
        """The arrays as a checkpoint holds them."""
        return {_IN_CHECKPOINTS.get(name, name): value for name, value in self.tensors().items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take the values of a checkpoint of the same run."""
        for name, value in self.tensors().items():
            value.copy_(state[_IN_CHECKPOINTS.get(name, name)])

    def cpu(self) -> MapArrays:
        moved: dict[str, Any] = {name: value.cpu() for name, value in self.tensors().items()}
        return dataclasses.replace(self, **moved)

    def gathered(self, exchange: Exchange, sets: int, device: torch.device) -> MapArrays:
        """The rows of all ranks, of unit sets that were dealt to them in turn."""
        rows = self.tensors()
        for same_on_all in SHARED:
            rows.pop(same_on_all, None)
        return dataclasses.replace(self, **exchange.gather(rows, sets, device))
