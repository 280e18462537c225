"""The caller's global settings, which neither decide what the library makes nor are changed by it."""

from __future__ import annotations

import gc
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch

from .arithmetic import set_tf32_settings, tf32_settings
from .randomness import random_state_kept


@contextmanager
def torch_defaults(device: torch.device | None = None) -> Iterator[None]:
    """torch's own settings inside: float32 as default type, this device (the CPU) as the default one, no autocast.

    The default type belongs to the process: whoever uses this holds the lock of the random generators as well.
    """
    before = torch.get_default_dtype()
    with default_device(device or torch.device("cpu")), no_autocast({"cpu", torch.get_default_device().type}):
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(before)


@contextmanager
def fresh_settings() -> Iterator[None]:
    """For code that builds a network: torch's own settings, ordinary tensors, and a random state to spend.

    As a decorator, ``@fresh_settings()``, it makes a loader one of these.
    """
    with random_state_kept(), torch.inference_mode(False), torch_defaults():
        yield


@contextmanager
def default_device(device: torch.device) -> Iterator[None]:
    """Tensors that are made inside without naming a device are on this one."""
    with ExitStack() as stack:
        if torch.get_default_device() != device:  # entered only where needed, since it makes every call slower
            stack.enter_context(device)
        yield


@contextmanager
def no_autocast(kinds: set[str]) -> Iterator[None]:
    """Autocast is off inside, for these kinds of devices."""
    with ExitStack() as stack:
        for kind in kinds:
            # Entered only where needed, and without the cache of weights that were cast: only the outermost autocast
            # empties it, so that training inside would go on with the weights of its first step.
            if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False, cache_enabled=False))
        yield


def _set_deterministic(value: tuple[bool, bool]) -> None:
    torch.use_deterministic_algorithms(value[0], warn_only=value[1])


def _set_environment(value: dict[str, str]) -> None:
    for name in [name for name in os.environ if name not in value]:
        del os.environ[name]
    os.environ.update(value)


def _set_list(place: list[Any], value: list[Any]) -> None:
    place[:] = value


def _levels() -> dict[str, int]:
    known = list(logging.root.manager.loggerDict.items())
    levels = {name: logger.level for name, logger in known if isinstance(logger, logging.Logger)}
    return {"": logging.root.level, **levels}


def _set_levels(value: dict[str, int]) -> None:
    now = _levels()
    for name, level in value.items():
        if now.get(name) != level:
            logging.getLogger(name).setLevel(level)


# How each is read, and set.
_OF_THE_PROCESS: tuple[tuple[Callable[[], Any], Callable[[Any], Any]], ...] = (
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_default_device, torch.set_default_device),
    (torch.get_num_threads, torch.set_num_threads),
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    (tf32_settings, set_tf32_settings),
    (
        lambda: (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()),
        _set_deterministic,
    ),
    *(
        (partial(getattr, torch.backends.cudnn, name), partial(setattr, torch.backends.cudnn, name))
        for name in ("enabled", "benchmark", "deterministic")
    ),
    (np.geterr, lambda value: np.seterr(**value)),
    (gc.isenabled, lambda value: gc.enable() if value else gc.disable()),
    (sys.getrecursionlimit, sys.setrecursionlimit),
    (lambda: logging.root.manager.disable, logging.disable),
    (_levels, _set_levels),
    (os.getcwd, os.chdir),
    (lambda: list(sys.path), partial(_set_list, sys.path)),
    (lambda: list(warnings.filters), lambda value: _set_list(warnings.filters, value)),  # type: ignore[arg-type]
    (lambda: dict(os.environ), _set_environment),
)


@contextmanager
def process_settings_kept() -> Iterator[None]:
    """Settings of the process that are changed inside are set back: those of torch, NumPy and Python.

    They are not the caller's alone: entered around a forward, and no longer, so that what others set meanwhile stays.
    """
    before = [read() for read, _ in _OF_THE_PROCESS]
    try:
        yield
    finally:
        for (read, write), value in zip(_OF_THE_PROCESS, before, strict=True):
            if read() != value:
                write(value)


@contextmanager
def plain_arithmetic() -> Iterator[None]:
    """For arithmetic of our own, outside of a module: on the CPU unless it says where, and in the types that it has."""
    with default_device(torch.device("cpu")), no_autocast({"cpu", "cuda", "mps", "xpu"}):
        yield


@contextmanager
def sklearn_defaults() -> Iterator[None]:
    """scikit-learn's and NumPy's own settings inside: arrays come out as arrays, and arithmetic warns at most."""
    import sklearn

    settings = {"transform_output": "default", "array_api_dispatch": False, "enable_metadata_routing": False}
    with sklearn.config_context(**settings), np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"):
        yield


def unusual_settings() -> dict[str, str]:
    """The caller's default dtype if it is not torch's, since a forward may depend on it."""
    default = torch.get_default_dtype()
    return {} if default is torch.float32 else {"default_dtype": str(default).removeprefix("torch.")}
