"""State dicts with something missing, added or of another shape."""

from __future__ import annotations

from typing import Any

from torch import nn


def spoiled_state(module: nn.Module, **changes: Any) -> dict[str, Any]:
    """The module's state dict with other values for some names, written with ``__`` for dots; None removes one."""
    state: dict[str, Any] = dict(module.state_dict())
    for key, value in changes.items():
        name = key.replace("__", ".")
        if value is None:
            del state[name]
        else:
            state[name] = value
    return state
