"""How many samples go into one forward, what running out of memory looks like, and numbers to and from a device."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from .errors import ProbeError

T = TypeVar("T")

# The largest activation of a batch should stay in the cache of a CPU; measured on a DCGAN, larger
# batches are slower, from the page faults of fresh allocations.
_CPU_BYTES = 8 * 2**20
_ACCELERATOR_BYTES = 256 * 2**20
_MOST = 4096
# A GPU is busy with a few samples of a large generator, and may be asked for this share of its memory to get so many.
_FEW, _SHARE_FOR_FEW = 16, 32


def default_batch(bytes_per_sample: int, device: torch.device) -> int:
    """Samples per forward, such that the largest activation stays within a fixed limit.

    On a GPU 16 samples may take more than that limit, up to a thirty-second of its memory (not of what is free of it,
    which changes from call to call).
    """
    each = max(1, bytes_per_sample)
    if device.type == "cpu":
        return max(1, min(_MOST, _CPU_BYTES // each))
    few = min(_FEW, _memory_of(device) // _SHARE_FOR_FEW // each)
    return max(1, few, min(_MOST, _ACCELERATOR_BYTES // each))


def _memory_of(device: torch.device) -> int:
    """Bytes that a device has in all; 0 where nobody says."""
    return int(torch.cuda.get_device_properties(device).total_memory) if device.type == "cuda" else 0


# CPUs on Linux and Windows; CUDA, HIP and MPS; the libraries of kernels.
_OUT_OF_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "STATUS_ALLOC_FAILED",  # cuDNN, cuBLAS, MIOpen
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that an allocation failed, on any device."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


def no_room(what: str) -> ProbeError:
    """The error for a run that cannot be made any smaller."""
    return ProbeError(
        f"memory ran out in {what}; use a device with more memory, or the generator in half precision, .half()"
    )


@contextmanager
def room_for(what: str) -> Iterator[None]:
    """Around what cannot be made any smaller: running out of memory inside is a ProbeError that says in what."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise no_room(what) from error


def in_slices(n: int, size: int, run: Callable[[slice], T], what: str) -> Iterator[T]:
    """What ``run`` gives for consecutive slices of n samples; they are halved when memory runs out.

    A slice that ran out of memory is run again, so ``run`` must return what it finds, not add it up.

    Args:
        what: the run of a single sample, for the error when there is no room even for that.
    """
    start = 0
    while start < n:
        size = min(size, n - start)
        try:
            found = run(slice(start, start + size))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if size == 1:
                raise no_room(what) from error
            size //= 2
        else:
            yield found
            start += size


def on_device(numbers: Sequence[int], device: torch.device) -> Tensor:
    """Integers as a tensor on a device; a GPU is not waited for until they are there."""
    values = torch.tensor(numbers, dtype=torch.int64, device="cpu")
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


class Awaited:
    """A boolean on its way from a device: asking waits for it alone, not for what a GPU was given to do since."""

    def __init__(self, value: Tensor) -> None:
        self._arrived: Any = torch.cuda.Event() if value.is_cuda else None  # type: ignore[no-untyped-call]
        self._value = value.to("cpu", non_blocking=value.is_cuda)  # into pinned memory
        if self._arrived is not None:
            self._arrived.record(torch.cuda.current_stream(value.device))

    def __bool__(self) -> bool:
        if self._arrived is not None:
            self._arrived.synchronize()
        return bool(self._value)


def free_memory(device: torch.device) -> int | None:
    """Bytes that can still be taken on a device; None where nobody says."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return found[0] if found else None


def in_words(size: int) -> str:
    """A number of bytes as one reads it.

    >>> in_words(2**36), in_words(1500)
    ('64.0 GiB', '1.5 KiB')
    """
    for unit, power in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if size >= 2**power:
            return f"{size / 2**power:,.1f} {unit}"
    return f"{size} bytes"


def free_on_disk(folder: Path) -> int | None:
    """Bytes that can still be written into a folder, which may be yet to be made; None where nobody says."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def require_room(needed: int, what: str, device: torch.device | str = "cpu") -> None:
    """Raise a ProbeError before memory is taken that is not there."""
    free = free_memory(torch.device(device))
    if free is not None and needed > free:
        raise ProbeError(
            f"{what} need {needed / 2**30:,.1f} GiB and {free / 2**30:,.1f} GiB are free; make them smaller"
        )


# Of mallopt, in malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4


@contextmanager
def memory_kept(device: torch.device) -> Iterator[None]:
    """On a CPU with glibc: memory that is freed inside is used again, and given back at the end.

    By default large blocks go back to the system at once, and every new activation of a large
    generator then waits for its pages: half of the time of BigGAN-deep-256.
    """
    own_settings = any(name.startswith("MALLOC_") for name in os.environ)
    if device.type != "cpu" or own_settings or platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_MMAP_MAX, 0)
    libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        # Any setting ends glibc's own adapting, so what stays is what it settles on where blocks are large.
        libc.mallopt(_MMAP_MAX, 65536)
        libc.mallopt(_MMAP_THRESHOLD, 32 * 2**20)
        libc.mallopt(_TRIM_THRESHOLD, 64 * 2**20)
        libc.malloc_trim(0)
