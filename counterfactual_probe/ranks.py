"""Sharing work among the ranks of torch.distributed: who does what, and how it comes together.

Under ``torchrun`` every rank makes the same call; each runs its share of the unit sets and all get
the whole result. Without torch.distributed there is one rank, and nothing here does anything.
"""

from __future__ import annotations

import atexit
import contextlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from .errors import ProbeError, first_line

_PATIENCE = timedelta(seconds=10)


@dataclass(frozen=True)
class Ranks:
    """This process's rank among ``world``."""

    rank: int = 0
    world: int = 1

    def share(self, items: int, rank: int | None = None) -> range:
        """A rank's consecutive share of so many items; shares differ by one at most."""
        rank = self.rank if rank is None else rank
        each, more = divmod(items, self.world)
        start = rank * each + min(rank, more)
        return range(start, start + each + (rank < more))

    def require_same(self, identity: Mapping[str, Any]) -> None:
        """Every rank must make the same call on the same weights; otherwise all of them raise."""
        found = self._exchange(dict(identity))
        for rank, other in enumerate(found):
            for key, value in found[0].items():
                if other.get(key) != value:
                    raise ProbeError(
                        f"rank {rank} has another {key} than rank 0 ({other.get(key)!r:.60} and {value!r:.60}); make "
                        "the same call on the same weights on every rank"
                    )

    @contextmanager
    def together(self) -> Iterator[None]:
        """What fails on one rank inside is raised on all, so that none waits for what will not come."""
        failure: BaseException | None = None
        try:
            yield
        except BaseException as error:
            failure = error
        if self.world > 1:
            messages = self._exchange("" if failure is None else f"{type(failure).__name__}: {first_line(failure)}")
            failed = next((rank for rank, message in enumerate(messages) if message), None)
            if failure is None and failed is not None:
                raise ProbeError(f"rank {failed} failed ({messages[failed]}); mend that and run all ranks again")
        if failure is not None:
            raise failure

    def gather(self, arrays: Mapping[str, Tensor | None], items: int, device: torch.device) -> dict[str, Any]:
        """The ranks' shares put together along the first dimension, on the CPU of every rank."""
        if self.world == 1:
            return dict(arrays)
        most = len(self.share(items, 0))
        # NCCL moves tensors of its own devices only.
        place = device if dist.get_backend() == "nccl" else torch.device("cpu")
        whole: dict[str, Any] = {}
        for name, array in arrays.items():
            if array is None:
                whole[name] = None
                continue
            padded = torch.zeros(most, *array.shape[1:], dtype=array.dtype, device=place)
            padded[: len(array)] = array
            parts = [torch.empty_like(padded) for _ in range(self.world)]
            with _collective():
                dist.all_gather(parts, padded)
            own = [part[: len(self.share(items, rank))] for rank, part in enumerate(parts)]
            whole[name] = torch.cat(own).cpu()
        return whole

    def first(self, value: Any) -> Any:
        """Rank 0's value, on every rank."""
        return self._exchange(value)[0]

    def _exchange(self, value: Any) -> list[Any]:
        if self.world == 1:
            return [value]
        found: list[Any] = [None] * self.world
        with _collective():
            dist.all_gather_object(found, value)
        return found


def current_ranks(device: torch.device) -> Ranks:
    """The ranks of the process group; it is made here when a launcher such as torchrun has set it up."""
    if not dist.is_available():
        return Ranks()
    if not dist.is_initialized():
        if not {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
            return Ranks()
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        atexit.register(_leave)
    return Ranks(dist.get_rank(), dist.get_world_size())


def _leave() -> None:
    """Leave the group that was made here, together: a rank that goes early tears down what others still use."""
    if dist.is_initialized():
        with contextlib.suppress(RuntimeError):  # a rank that has died cannot be waited for
            dist.barrier(async_op=True).wait(timeout=_PATIENCE)
        dist.destroy_process_group()


@contextmanager
def _collective() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise ProbeError(
            f"another rank ended or cannot be reached ({first_line(error)[:120]}); start all ranks again, with the "
            "same checkpoint if there was one"
        ) from error
