"""Weight files, read as tensors only, and loaded into modules with nothing missing and nothing left over."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from ..base.errors import ProbeError, first_line
from ..base.files import read_bytes


def load_weights(path: Path, sha256: str | None = None) -> Mapping[str, Any]:
    """What ``torch.save`` or safetensors wrote, read as tensors only (``weights_only=True``) onto the CPU."""
    content = read_bytes(path)
    digest = hashlib.sha256(content).hexdigest()
    if sha256 is not None and digest != sha256:
        raise ProbeError(
            f"{path.name} has SHA-256 {digest[:12]}… and {sha256[:12]}… is expected (truncated or altered file); "
            "reinstall the package that ships it"
        )
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load(content)
        loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # on damaged bytes torch's reader may raise anything
        raise ProbeError(
            f"{path.name} holds no readable weights ({first_line(error)}); get a complete, plain file"
        ) from error
    if not isinstance(loaded, Mapping):
        raise ProbeError(
            f"{path.name} holds a {type(loaded).__name__} and not a state dict; give one of tensors by name"
        )
    return loaded


def tensors_only(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state dict's tensors, without a wrapper's ``module.`` prefix."""
    return {key.removeprefix("module."): value for key, value in state.items() if isinstance(value, Tensor)}


def load_state(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Load every tensor, or say which are missing, unexpected or of another shape than ``what`` has."""
    expected = module.state_dict()
    counters = {key for key in expected if key.endswith("num_batches_tracked")}
    shaped = [
        f"{key} {tuple(state[key].shape)} for {tuple(expected[key].shape)}"
        for key in sorted(set(state) & set(expected))
        if state[key].shape != expected[key].shape
    ]
    problems = {
        "missing": sorted(set(expected) - set(state) - counters),
        "unexpected": sorted(set(state) - set(expected)),
        "of another shape": shaped,
    }
    if any(problems.values()):
        listed = "; ".join(f"{kind}: {', '.join(keys[:3])}" for kind, keys in problems.items() if keys)
        raise ProbeError(f"the state dict is not that of {what} ({listed}); give a complete one")
    module.load_state_dict(dict(state), strict=False)
