"""Borrow the user's module for a run and give it back exactly as it was.

While a session is open the module is in eval mode, gradients are off and the global random
generators may be reseeded. When it closes, by whatever exit, modes, attributes, buffers and the
states of the random generators are those of before.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import nn

_REGISTERS = ("_parameters", "_buffers", "_modules")


@contextmanager
def borrowed(module: nn.Module) -> Iterator[None]:
    """Eval mode, inference mode and private random state inside; everything as found outside."""
    with ExitStack() as stack:
        stack.enter_context(random_state_kept(module))
        stack.enter_context(_attributes_kept(module))
        if _has_compiled_parts(module):
            # Compiled code ignores hooks (pytorch #117758), so its eager original is run.
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(torch.inference_mode())
        for part in module.modules():
            # Not .eval(): some modules override train() with side effects (merging adapters, say).
            part.training = False
            if part.__dict__.get("_compiled_call_impl") is not None:
                part.__dict__["_compiled_call_impl"] = None  # compiled in place: run the original
        yield


def seed_everything(seed: int, module: nn.Module) -> None:
    """Put the global generators that the module's forward may draw from into a state set by ``seed``.

    Those that :func:`random_state_kept` keeps, and no others: ``torch.manual_seed`` would reseed the
    generators of every device.
    """
    torch.default_generator.manual_seed(seed)
    for device in _cuda_devices(module):
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def random_states(module: nn.Module) -> list[bytes]:
    """A fingerprint of the global generators: it changes when a forward has drawn noise."""
    states = [torch.get_rng_state()]
    states += [torch.cuda.get_rng_state(device) for device in _cuda_devices(module)]
    keys = np.random.get_state(legacy=False)["state"]
    python = str(hash(random.getstate())).encode()
    return [state.numpy().tobytes() for state in states] + [
        np.append(keys["key"], keys["pos"]).tobytes(),
        python,
    ]


def _cuda_devices(module: nn.Module) -> list[torch.device]:
    tensors = [*module.parameters(), *module.buffers()]
    return sorted({tensor.device for tensor in tensors if tensor.device.type == "cuda"}, key=str)


@contextmanager
def random_state_kept(module: nn.Module) -> Iterator[None]:
    """The states of the global generators, of torch, NumPy and Python, are put back at the end."""
    legacy, python = np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng(devices=_cuda_devices(module)):
            yield
    finally:
        np.random.set_state(legacy)
        random.setstate(python)


@contextmanager
def _attributes_kept(module: nn.Module) -> Iterator[None]:
    """Undo whatever a forward leaves on the modules: counters, caches, moved buffers, modes."""
    found = []
    for part in module.modules():
        attributes = part.__dict__.copy()
        registers = {name: attributes[name].copy() for name in _REGISTERS}
        found.append((part, attributes, registers))
    buffers = [(buffer, buffer.detach().clone()) for buffer in module.buffers()]
    try:
        yield
    finally:
        for part, attributes, registers in found:
            part.__dict__.clear()
            part.__dict__.update(attributes)
            for name, entries in registers.items():
                part.__dict__[name].clear()
                part.__dict__[name].update(entries)
        with torch.inference_mode():  # buffers may themselves be inference tensors
            for buffer, value in buffers:
                if not torch.equal(buffer, value):
                    buffer.copy_(value)


def _has_compiled_parts(module: nn.Module) -> bool:
    return any(hasattr(part, "_orig_mod") for part in module.modules())
