"""Folders of this repository."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
BENCHMARKS, DOCS, EXAMPLES = ROOT / "benchmarks", ROOT / "docs", ROOT / "examples"
