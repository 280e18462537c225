"""The global random generators of torch, NumPy and Python: read, seeded and restored.

A forward may draw from them, so a run that seeds them holds their lock until they are as they were found.
"""

from __future__ import annotations

import random
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from .locks import random_lock


class _Reservations(threading.local):
    """How many :func:`random_state_kept` a thread is in."""

    reserved = 0


_this_thread = _Reservations()


class RandomNumbersDrawn(UserWarning):
    """The global random generators moved during a run that has no use for them, and were put back."""


def fitting(seed: int, bits: int) -> int:
    """A seed for a generator that takes so many bits: the seed itself if it fits, and otherwise 32 bits of a hash."""
    return seed if seed < 2**bits else int(np.random.SeedSequence(seed).generate_state(1)[0])


def seed_everything(seed: int, module: nn.Module) -> None:
    """Seed the global generators that the module's forward may use.

    Exactly those that :func:`random_state_kept` restores: ``torch.manual_seed`` would reseed the generators of every
    device.
    """
    torch.default_generator.manual_seed(seed)
    for device in cuda_devices(module):
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def random_states(module: nn.Module) -> list[bytes]:
    """A fingerprint of the global generators, which changes when a forward has used random numbers."""
    states = [torch.get_rng_state()]
    states += [torch.cuda.get_rng_state(device) for device in cuda_devices(module)]
    keys = np.random.get_state(legacy=False)["state"]
    python = str(hash(random.getstate())).encode()
    return [state.numpy().tobytes() for state in states] + [
        np.append(keys["key"], keys["pos"]).tobytes(),
        python,
    ]


@contextmanager
def random_state_kept(module: nn.Module | None = None) -> Iterator[None]:
    """Reserves the global generators for this thread, and restores their states at the end.

    Without a module, the generators of every GPU in use are restored as well as the CPU's.
    """
    with random_lock():
        numpy_state, python_state = np.random.get_state(), random.getstate()
        _this_thread.reserved += 1
        try:
            with torch.random.fork_rng(devices=cuda_devices(module)):
                yield
        finally:
            _this_thread.reserved -= 1
            np.random.set_state(numpy_state)
            random.setstate(python_state)


@contextmanager
def random_state_watched(module: nn.Module) -> Iterator[None]:
    """For a forward that is known to draw nothing: should it draw after all, the states of before are put back.

    It waits for no other thread: while one holds the generators, they are in no state that is worth keeping.
    """
    before = None if _this_thread.reserved else _states_if_free(module)  # in a run that draws, nothing is found out
    seen = None if before is None else random_states(module)
    moved = False
    try:
        yield
    finally:
        if before is not None and random_lock().acquire(blocking=False):
            try:
                moved = random_states(module) != seen
                _put_back(*before)
            finally:
                random_lock().release()
    if moved:
        warnings.warn(
            f"random numbers were drawn during a run of {type(module).__name__}, whose forward drew none before, by it "
            "or by another thread; the global random generators were put back",
            RandomNumbersDrawn,
            stacklevel=2,
        )


_States = tuple[list[tuple[torch.device | None, torch.Tensor]], dict[str, Any], tuple[Any, ...]]


def _states_if_free(module: nn.Module) -> _States | None:
    """The states of the generators, if no other thread holds them."""
    if not random_lock().acquire(blocking=False):
        return None
    try:
        states: list[tuple[torch.device | None, torch.Tensor]] = [(None, torch.get_rng_state())]
        states += [(device, torch.cuda.get_rng_state(device)) for device in cuda_devices(module)]
        return states, np.random.get_state(legacy=False), random.getstate()
    finally:
        random_lock().release()


def _put_back(
    torch_states: list[tuple[torch.device | None, torch.Tensor]],
    numpy_state: dict[str, Any],
    python_state: tuple[Any, ...],
) -> None:
    for device, state in torch_states:
        if device is None:
            torch.set_rng_state(state)
        else:
            torch.cuda.set_rng_state(state, device)
    np.random.set_state(numpy_state)
    random.setstate(python_state)


def cuda_devices(module: nn.Module | None) -> list[torch.device]:
    if module is None:
        used = torch.cuda.is_available() and bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
        return [torch.device("cuda", index) for index in range(torch.cuda.device_count())] if used else []
    tensors = [*module.parameters(), *module.buffers()]
    return sorted({tensor.device for tensor in tensors if tensor.device.type == "cuda"}, key=str)
