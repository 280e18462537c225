"""Tables of pages that benchmarks measured: between ``<!-- measured: NAME -->`` and ``<!-- end -->``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def markdown(head: Sequence[Any], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def written_into(page: str, tables: Mapping[str, str]) -> str:
    """The page with these tables, by the names of their places, made anew."""
    for name, table in tables.items():
        pattern = rf"(<!-- measured: {re.escape(name)} -->\n).*?(<!-- end -->)"
        page = re.sub(pattern, lambda match, table=table: f"{match[1]}\n{table}\n\n{match[2]}", page, flags=re.DOTALL)  # type: ignore[misc]
    return page


def write_into(page: Path, tables: Mapping[str, str]) -> None:
    page.write_text(written_into(page.read_text(encoding="utf-8"), tables), encoding="utf-8")
