"""Borrow the user's module for a run and give it back exactly as it was.

While a session is open the module is in eval mode, gradients and the caller's autocast are off, and the global random
generators may be reseeded. When it closes, by whatever exit, modes, attributes, containers, hooks, buffers and the
states of the random generators are those of before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from typing import Any

import torch
from torch import nn

from .arithmetic import exact_arithmetic
from .contents.attributes import attributes_kept
from .locks import holding
from .randomness import random_state_kept, random_state_watched
from .settings import default_device, no_autocast, process_settings_kept


@contextmanager
def borrowed(module: nn.Module, *, draws: bool = True, inference: bool = False) -> Iterator[bool]:
    """Eval mode, no gradients and private random state inside; everything as found outside.

    It nests in a thread, and gives whether it is the outermost, which alone changes and puts back anything.
    ``draws`` says whether the forward may draw random numbers: other threads' sessions that do wait until this ends.
    Only a forward that ``inference`` mode made the tensors of runs in it: what a forward keeps anywhere, such as the
    tables of an ``lru_cache``, would be of no use in training afterwards.
    """
    with ExitStack() as stack:
        if draws:  # before the module's lock, so that two threads cannot wait for each other
            stack.enter_context(random_state_kept(module))
        held = stack.enter_context(holding(module))
        if held.depth == 1:
            if not draws:
                stack.enter_context(random_state_watched(module))
            _prepare(module, stack, inference)
        yield held.depth == 1


def _prepare(module: nn.Module, stack: ExitStack, inference: bool) -> None:
    reached = stack.enter_context(attributes_kept(module))
    if reached.compiled:
        # Compiled code ignores hooks (pytorch #117758), so its eager original is run.
        stack.enter_context(torch.compiler.set_stance("force_eager"))
    stack.enter_context(torch.inference_mode(inference))
    stack.enter_context(torch.no_grad())
    devices = [value.device for value in reached.tensors]
    kinds = {device.type for device in devices}
    stack.enter_context(no_autocast(kinds | {"cpu"}))
    stack.enter_context(exact_arithmetic(kinds))
    # What a forward makes without naming a device joins the weights, whatever the caller has set.
    stack.enter_context(default_device(_device_of(module)))
    for part in reached.modules:
        # Not .eval(): some modules override train() with side effects (merging adapters, say).
        part.training = False
        if part.__dict__.get("_compiled_call_impl") is not None:
            part.__dict__["_compiled_call_impl"] = None  # compiled in place: run the original


def called(forward: Callable[..., Any], *given: Any, **named: Any) -> Any:
    """The output of a module, or of a method of it; what it sets for the process, or the context, is undone."""
    with process_settings_kept():
        return copy_context().run(forward, *given, **named)


def _device_of(module: nn.Module) -> torch.device:
    return next((value.device for value in (*module.parameters(), *module.buffers())), torch.device("cpu"))


def needs_inference(error: BaseException | None) -> bool:
    """Whether this error is that of a forward that writes into tensors of inference mode, run outside of it."""
    return isinstance(error, RuntimeError) and "inference" in str(error).lower()
