"""Borrow the user's module for a run and give it back exactly as it was.

While a session is open the module is in eval mode, gradients and the caller's autocast are off, and the global random
generators may be reseeded. When it closes, by whatever exit, modes, attributes, containers, hooks, buffers and the
states of the random generators are those of before.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from .attributes import attributes_kept
from .locks import holding
from .randomness import random_state_kept, random_state_watched
from .wrappers import has_compiled_parts


@contextmanager
def borrowed(module: nn.Module, *, draws: bool = True, inference: bool = True) -> Iterator[bool]:
    """Eval mode, no gradients and private random state inside; everything as found outside.

    It nests in a thread, and gives whether it is the outermost, which alone changes and puts back anything.
    ``draws`` says whether the forward may draw random numbers: other threads' sessions that do wait until this ends.
    Without ``inference`` mode, which is a little faster, the forward may take gradients of its own.
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
    if has_compiled_parts(module):
        # Compiled code ignores hooks (pytorch #117758), so its eager original is run.
        stack.enter_context(torch.compiler.set_stance("force_eager"))
    stack.enter_context(torch.inference_mode(inference))
    stack.enter_context(torch.no_grad())
    for kind in {value.device.type for value in reached.tensors} | {"cpu"}:
        if torch.amp.is_autocast_available(kind):
            stack.enter_context(torch.autocast(kind, enabled=False))
    for part in reached.modules:
        # Not .eval(): some modules override train() with side effects (merging adapters, say).
        part.training = False
        if part.__dict__.get("_compiled_call_impl") is not None:
            part.__dict__["_compiled_call_impl"] = None  # compiled in place: run the original


def forbids_gradients(error: BaseException | None) -> bool:
    """Whether this error is that of a forward that computes gradients itself, run in inference mode."""
    message = str(error).lower() if isinstance(error, RuntimeError) else ""
    return "inference" in message or "require grad" in message or "requires grad" in message


@contextmanager
def default_float32() -> Iterator[None]:
    """torch's own default type inside, whatever the caller has set."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def fresh_settings() -> Iterator[None]:
    """For code that builds a network: torch's own default type, ordinary tensors, and a random state to spend."""
    with random_state_kept(), torch.inference_mode(False), default_float32():
        yield
