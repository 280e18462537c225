"""What stands in for installed packages, and files that must not be believed."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from counterfactual_probe.adapters import wheels


def entries(*pairs: tuple[str, str]) -> Callable[..., list[EntryPoint]]:
    return lambda group: [EntryPoint(name, value, group) for name, value in pairs]


def installed(monkeypatch: pytest.MonkeyPatch, folder: Path, version: str = "1.1.1") -> None:
    found = SimpleNamespace(version=version, locate_file=lambda file: folder / file)
    monkeypatch.setattr(wheels, "distribution", lambda name: found)


class Hostile:
    """Writes a file when unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return (os.system, (f"echo harm > {self.target}",))
