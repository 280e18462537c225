"""Tests on several devices: which toys run where, and how a test comes onto a device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch

from support.devices.standin import StandIn
from support.toys import Toy

STAND_IN, GPU = "stand-in", "cuda"
# The toys that the suite itself runs on the stand-in; the others are in the long tests.
_SHORT = {"deconvolutions, batch norm, in-place ReLU", "conditional, dict of latents", "tokens, attention"}
_SHORT |= {"float32", "bfloat16", "noise in the forward"}


def on_devices(toys: Sequence[Toy], *, short: bool = True) -> list[Any]:
    """Parameters of a test: each toy on the CPU, on the stand-in for a GPU, and on a GPU.

    ``short`` says whether the suite runs some of them on the stand-in.
    """
    cases = [pytest.param(toy, id=toy.name) for toy in toys]
    for toy in toys:
        marks = () if short and toy.name in _SHORT else pytest.mark.long
        if "compiled" not in toy.name:  # which Dynamo would trace down to the GPU that is not there
            cases.append(pytest.param(replace(toy, device=STAND_IN), id=f"{toy.name} on the stand-in", marks=marks))
        cases.append(pytest.param(replace(toy, device=GPU), id=f"{toy.name} on a GPU", marks=pytest.mark.gpu))
    return cases


ACCELERATORS = [STAND_IN, pytest.param(GPU, marks=pytest.mark.gpu)]


@contextmanager
def device_of(params: dict[str, Any], patch: pytest.MonkeyPatch) -> Iterator[StandIn | None]:
    """The device that a test's parameters name, made ready; the stand-in if it is that."""
    named = {params.get("device"), *(value.device for value in params.values() if isinstance(value, Toy))}
    if GPU in named:
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device is here")
        # Twins are run outside of the library, with what torch allows by default.
        patch.setattr(torch.backends.cudnn, "allow_tf32", False)
    if STAND_IN not in named:
        yield None
        return
    stand_in = StandIn()
    stand_in.install(patch)
    with stand_in:
        yield stand_in
