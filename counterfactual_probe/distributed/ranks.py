"""This process among all: its share of the work, and the collectives that put the results together.

Under ``torchrun`` every rank makes the same call. Without torch.distributed there is one rank, and nothing here
communicates.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from .group import collective, gathered, join_group


@dataclass(frozen=True)
class Ranks:
    """This process's rank among ``world``."""

    rank: int = 0
    world: int = 1

    # --- shares -----------------------------------------------------------------------------------

    def dealt(self, items: int, rank: int | None = None) -> range:
        """A rank's items when they are dealt out in turn: neighbours, such as the channels of one layer, cost the
        same, and go to different ranks."""
        return range(self.rank if rank is None else rank, items, self.world)

    def share(self, items: int, rank: int | None = None) -> range:
        """A rank's consecutive share of so many items; shares differ by one at most."""
        rank = self.rank if rank is None else rank
        each, more = divmod(items, self.world)
        start = rank * each + min(rank, more)
        return range(start, start + each + (rank < more))

    def rows(self, batch: Tensor) -> Tensor:
        """This rank's share of a batch's rows."""
        share = self.share(len(batch))
        return batch[share.start : share.stop]

    # --- collectives ------------------------------------------------------------------------------

    def first(self, value: Any) -> Any:
        """Rank 0's value, on every rank."""
        if self.world == 1:
            return value
        values = [value if self.rank == 0 else None]
        with collective():
            dist.broadcast_object_list(values, src=0)
        return values[0]

    def objects(self, value: Any) -> list[Any]:
        """Every rank's value, in order of rank."""
        if self.world == 1:
            return [value]
        content = np.frombuffer(pickle.dumps(value), dtype=np.uint8).copy()
        place = self.place(torch.device("cuda", torch.cuda.current_device()) if _on_gpus() else torch.device("cpu"))
        sizes = [int(size) for size in gathered(torch.tensor([len(content)], device=place))]
        padded = torch.zeros(max(sizes), dtype=torch.uint8, device=place)
        padded[: len(content)] = torch.from_numpy(content)
        parts = [part[:size].cpu().numpy() for part, size in zip(gathered(padded), sizes, strict=True)]
        return [pickle.loads(part.tobytes()) for part in parts]

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a tensor over all ranks; no gradient passes."""
        if self.world == 1:
            return value
        total = value.detach().clone()
        with collective():
            dist.all_reduce(total)
        return total.div_(self.world)

    def batch(self, rows: Tensor) -> Tensor:
        """The rows of all ranks, equally many each, in order of rank; no gradient passes."""
        rows = rows.detach().contiguous()
        return rows if self.world == 1 else torch.cat(gathered(rows))

    def gather(self, arrays: Mapping[str, Tensor | None], items: int, device: torch.device) -> dict[str, Any]:
        """Rows of the items dealt to each rank, put together in order on the CPU of every rank."""
        if self.world == 1:
            return dict(arrays)
        most, place = len(self.dealt(items, 0)), self.place(device)
        whole: dict[str, Any] = {}
        for name, array in arrays.items():
            if array is None:
                whole[name] = None
                continue
            padded = torch.zeros(most, *array.shape[1:], dtype=array.dtype, device=place)
            padded[: len(array)] = array
            # Row by row: the first of every rank, then the second, and so on.
            whole[name] = torch.stack(gathered(padded), 1).flatten(0, 1)[:items].cpu()
        return whole

    def place(self, device: torch.device) -> torch.device:
        """Where tensors must be to be exchanged: NCCL moves those of its own devices only, others the CPU's."""
        return device if self.world > 1 and _on_gpus() else torch.device("cpu")


def _on_gpus() -> bool:
    return bool(dist.get_backend() == "nccl")


def current_ranks(device: torch.device) -> Ranks:
    """The ranks of the process group; it is initialised here if a launcher such as torchrun asks for it."""
    return Ranks(dist.get_rank(), dist.get_world_size()) if join_group(device) else Ranks()
