"""What a probe could disturb: everything about a module, and the global random generators."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
)


def global_random() -> tuple[Any, ...]:
    state = np.random.get_state(legacy=False)
    return (
        torch.get_rng_state().numpy().tobytes(),
        state["state"]["key"].tobytes(),
        state["state"]["pos"],
        random.getstate(),
    )


def raw(value: Tensor) -> bytes:
    return value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes()


def fingerprint(module: nn.Module) -> dict[str, Any]:
    """Everything about a module that a probe could disturb."""
    found: dict[str, Any] = {}
    for name, part in module.named_modules():
        found[f"{name}: hooks"] = [list(getattr(part, kind).items()) for kind in HOOKS]
        found[f"{name}: mode"] = part.training
        # By identity too: a buffer replaced by an equal one breaks whoever holds the old one.
        found[f"{name}: tensors"] = [
            (key, id(value), value.dtype, value.device, value.requires_grad, raw(value))
            for key, value in [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]
        ]
        found[f"{name}: attributes"] = {key: id(value) for key, value in part.__dict__.items() if key != "training"}
    found["gradients"] = [None if p.grad is None else p.grad.sum().item() for p in module.parameters()]
    return found
