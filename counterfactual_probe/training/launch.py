"""Device, precision and processes of a training, through Accelerate."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from torch import nn

from ..base.errors import ProbeError, first_line
from ..distributed.ranks import Ranks
from .recipe import PRECISIONS, Precision

if TYPE_CHECKING:
    from accelerate import Accelerator

_DEVICES = (None, "cpu", "cuda")


def require_accelerate() -> None:
    """Raise a ProbeError where Accelerate is not installed."""
    if find_spec("accelerate") is None:
        raise ProbeError(
            "training runs on Accelerate, which is not installed; run: pip install 'counterfactual-probe[train]'"
        )


@contextmanager
def accelerated(precision: Precision, device: str | None) -> Iterator[Accelerator]:
    """An Accelerator for one training; the next one may have another precision."""
    require_accelerate()
    from accelerate import Accelerator, DistributedDataParallelKwargs
    from accelerate.state import AcceleratorState

    if precision not in PRECISIONS:
        raise ProbeError(f"precision is {precision!r}; give one of {', '.join(PRECISIONS)}")
    if device not in _DEVICES or (device == "cuda" and not torch.cuda.is_available()):
        raise ProbeError(
            f"device is {device!r}, which cannot be trained on here; give cpu or cuda (CUDA_VISIBLE_DEVICES chooses "
            "which, and accelerate launch or torchrun use several)"
        )
    first = not AcceleratorState._shared_state
    try:
        accelerator = Accelerator(
            cpu=device == "cpu",
            mixed_precision="bf16" if precision == "bf16" else "no",
            # Losses may call a network more than once before backward, and buffers broadcast in between would
            # invalidate the graph of the first call.
            kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
        )
    except ValueError as error:
        raise ProbeError(
            f"Accelerate cannot run this training ({first_line(error)}); change precision or device"
        ) from error
    try:
        yield accelerator
    finally:
        accelerator.free_memory()
        if first:
            # Its state fixes precision and device of the process; one that somebody else made is left alone.
            AcceleratorState._reset_state(accelerator.num_processes == 1)


def group_device(device: str | None) -> torch.device:
    """The device of this process among several that a launcher has started."""
    if device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    local = os.environ.get("LOCAL_RANK", "")
    return torch.device("cuda", int(local) if local.isdecimal() else 0)


def ranks_of(accelerator: Accelerator, batch: int) -> Ranks:
    """This process among all; a batch must divide evenly among them."""
    count = accelerator.num_processes
    if batch % count:
        raise ProbeError(f"a batch of {batch} cannot be shared by {count} processes; give a multiple of {count}")
    return Ranks(accelerator.process_index, count)


def network_of(accelerator: Accelerator, module: nn.Module) -> nn.Module:
    """The network itself, without the wrapper of several ranks."""
    network: nn.Module = accelerator.unwrap_model(module, keep_fp32_wrapper=True)
    return network
