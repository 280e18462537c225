"""Python in documents, and programs of their own."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import matplotlib as mpl


def blocks(language: str, document: Path) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text(), re.DOTALL | re.MULTILINE)


def run_python(document: Path) -> list[str]:
    """Run a document's Python from top to bottom; returns its blocks."""
    mpl.use("Agg")
    names: dict[str, object] = {}
    code = blocks("python", document)
    for block in code:
        exec(compile(block, document.name, "exec"), names)
    return code


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    return done.stdout.strip()
