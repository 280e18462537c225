"""A generator's module with gradients on, and given back as it was found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..base.errors import ProbeError
from ..generator.adapter import GeneratorAdapter


@contextmanager
def differentiable(generator: GeneratorAdapter) -> Iterator[None]:
    """A session in which gradients reach the latents; inside, take them under ``torch.enable_grad()``.

    Weights take no gradients, so that none is computed, and those that inference mode made, of which no gradient can be
    taken, are replaced by copies. The end of the session puts everything back.
    """
    with generator.session():
        if torch.is_inference_mode_enabled():
            raise no_gradients(generator.name, "its forward runs in inference mode alone")
        for part in generator.module.modules():
            kept: list[dict[str, Any]] = [part._parameters, part._buffers]
            for tensors in kept:
                for name, value in list(tensors.items()):
                    if value is not None:
                        tensors[name] = _of_no_gradient(value)
        yield


def _of_no_gradient(value: Tensor) -> Tensor:
    if value.is_inference():
        ordinary = value.clone()
        return nn.Parameter(ordinary, requires_grad=False) if isinstance(value, nn.Parameter) else ordinary
    if value.is_leaf and value.requires_grad:
        value.requires_grad_(False)
    return value


def no_gradients(name: str, reason: str) -> ProbeError:
    """The error for a generator that no gradient goes through."""
    return ProbeError(
        f"no gradient reaches the latents of {name} from its images ({reason}); give one that computes in floating "
        "point throughout and not under torch.no_grad, or latents of your own"
    )
