"""The examples, whose code the studies use."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

_FOLDER = str(Path(__file__).resolve().parents[2] / "examples")


def example(name: str) -> Any:
    """The module of an example."""
    if _FOLDER not in sys.path:
        sys.path.append(_FOLDER)
    return importlib.import_module(name)
