"""The folders of this repository, and the Python in its documents, examples and benchmarks."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib as mpl

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
BENCHMARKS, DOCS, EXAMPLES = ROOT / "benchmarks", ROOT / "docs", ROOT / "examples"


def blocks(language: str, document: Path) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text(), re.DOTALL | re.MULTILINE)


def run_python(document: Path, names: dict[str, Any] | None = None) -> list[str]:
    """Run a document's Python from top to bottom, in ``names`` if given; returns its blocks."""
    mpl.use("Agg")
    names = {} if names is None else names
    code = blocks("python", document)
    for block in code:
        exec(compile(block, document.name, "exec"), names)
    return code


def benchmark(name: str) -> ModuleType:
    """A script of the benchmarks, or a module of one that is a folder; they import one another by name."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return import_module(name) if "." in name else module_of(BENCHMARKS / f"{name}.py")
    finally:
        sys.path.remove(str(BENCHMARKS))


def module_of(path: Path) -> ModuleType:
    """A file of Python that is in no package, as a module of its name."""
    spec = spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
