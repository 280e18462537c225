"""What other threads of the user do to a module while it runs: noticed where it leaves a trace.

A session keeps our own threads apart by locks, which a user's thread does not ask for. Two things that it does can be
seen afterwards: numbers drawn from the global random generators while a forward draws its own, since they are then
further than the forward alone takes them; and parts put into train mode. What leaves no trace cannot be seen: a mode
that is set back before the forward ends, or draws by as many numbers as a generator makes at a time (624).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from ...base.errors import ProbeError
from .randomness import cuda_devices

T = TypeVar("T")
_CURE = "let no other thread use it, or draw random numbers, during a run"


class Disturbed(ProbeError):
    """Another thread has changed what a run depends on; whatever executor is tried, its results would be wrong."""


class Draws:
    """How far the forward of one sample takes the global random generators, whatever their seed."""

    def __init__(self) -> None:
        self._known: set[tuple[bytes, ...]] = set()

    def watched(self, name: str, module: nn.Module, run: Callable[[], T]) -> T:
        """What ``run`` gives, which seeds the generators before it draws from them.

        Where it takes them further than any run before, it is run once more, to see whether it does so by itself: as
        one does that draws until a number fits.

        Raises:
            Disturbed: it does not.
        """
        result = run()
        reached = _positions(module)
        if reached not in self._known:
            result = run()
            if _positions(module) != reached:
                raise Disturbed(
                    f"random numbers were drawn while the forward of {name} drew its own, so that its noise is not "
                    f"reproducible; {_CURE}"
                )
            self._known.add(reached)
        return result

    def note(self, module: nn.Module) -> None:
        """The generators are as far as a forward takes them."""
        self._known.add(_positions(module))


def _positions(module: nn.Module) -> tuple[bytes, ...]:
    """How many numbers the global generators have made since they were seeded, as far as they tell."""
    # Of the Mersenne Twister: how many numbers are left until it makes the next 624, and which is next.
    places = [torch.get_rng_state()[8:24].numpy().tobytes()]
    places += [torch.cuda.get_rng_state(device)[8:].numpy().tobytes() for device in cuda_devices(module)]
    numpy_state = np.random.get_state(legacy=False)
    places.append(bytes(str((numpy_state["state"]["pos"], numpy_state["has_gauss"])), "ascii"))
    return (*places, bytes(str(random.getstate()[1][-1]), "ascii"))


class Modes:
    """Which parts of a module are in train mode after a forward that was begun in eval mode."""

    def __init__(self) -> None:
        self._by_itself: set[str] | None = None

    def require(self, name: str, parts: Mapping[str, nn.Module], *, first: bool = False) -> None:
        """Raise a Disturbed if there are others than the forward leaves there by itself, as the ``first`` one shows."""
        in_train = {part for part, module in parts.items() if module.training}
        if first:
            self._by_itself = in_train
        elif others := in_train - (self._by_itself or set()):
            raise Disturbed(
                f"{min(others)!r} of {name} was put into train mode during a run in eval mode, by another thread or a "
                f"hook; {_CURE}"
            )
