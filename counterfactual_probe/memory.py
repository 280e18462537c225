"""How many samples go into one forward, and what running out of memory looks like."""

from __future__ import annotations

import torch

from .errors import ProbeError

# The largest activation of a batch should stay in the cache of a CPU; measured on a DCGAN, larger
# batches are slower, from the page faults of fresh allocations.
_CPU_BYTES = 8 * 2**20
_ACCELERATOR_BYTES = 256 * 2**20
_MOST = 4096


def default_batch(bytes_per_sample: int, device: torch.device) -> int:
    """Samples per forward, such that the largest activation stays within a fixed limit."""
    limit = _CPU_BYTES if device.type == "cpu" else _ACCELERATOR_BYTES
    return max(1, min(_MOST, limit // max(1, bytes_per_sample)))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that an allocation failed, on any device."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def no_room(what: str) -> ProbeError:
    """The error for a run that cannot be made any smaller."""
    return ProbeError(
        f"memory ran out in {what}; use a device with more memory, or the generator in half precision, .half()"
    )
