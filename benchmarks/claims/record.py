"""The file of what was measured: study by study, with the machine and the versions of each."""

from __future__ import annotations

import importlib.metadata
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from throughput import machine

from .row import Numbers, Study

FILE = Path(__file__).resolve().parents[1] / "measured" / "ledger.json"
_DIGITS = 6  # significant ones, more than any page shows


def read(path: Path = FILE) -> dict[str, Any]:
    """By study, what is kept of it."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def numbers(kept: Mapping[str, Any], study: Study) -> Numbers:
    """A study's numbers."""
    found: Numbers = kept[study.name]["numbers"]
    return found


def measured(study: Study) -> dict[str, Any]:
    """Run a study."""
    start = time.process_time()
    made = rounded(study.measure())
    about = machine(torch.device("cpu")) | {
        name: importlib.metadata.version(name) for name in ("numpy", "scipy", "scikit-learn")
    }
    return {
        "repeats": study.repeats,
        "date": datetime.now(UTC).date().isoformat(),
        "processor_seconds": round(time.process_time() - start),
        "machine": about,
        "numbers": made,
    }


def write(name: str, found: Mapping[str, Any], path: Path = FILE) -> None:
    """Put one study into the file, and leave the others as they are."""
    kept = read(path) | {name: found}
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(dict(sorted(kept.items())), indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def rounded(value: Any) -> Any:
    """The same with floats of a few significant digits."""
    if isinstance(value, dict):
        return {str(key): rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(item) for item in value]
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value
