"""Rows that a benchmark measures one by one into a JSON file, so that the same command goes on after a stop."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from throughput import machine


def add_options(parser: argparse.ArgumentParser, measured: Path, *, short: str) -> None:
    """Which rows are measured, and where they are kept."""
    parser.add_argument("--short", action="store_true", help=short)
    parser.add_argument("--only", default="", help="only rows whose name holds this, measured anew")
    parser.add_argument("--out", type=Path, default=measured, help="the file that keeps the rows")
    parser.add_argument("--page", type=Path, help="write tables and figure from the file instead")


def opened(options: argparse.Namespace) -> dict[str, Any]:
    """What is in the file; nothing of it for a short run."""
    result: dict[str, Any] = {"machine": {}, "rows": {}}
    if options.out.exists() and not options.short:
        result = json.loads(options.out.read_text(encoding="utf-8"))
    return result


def measure(
    result: dict[str, Any], rows: Iterable[tuple[str, Callable[[], dict[str, Any]]]], options: argparse.Namespace
) -> None:
    """Measure the rows that are not there, or those that were asked for; each is kept at once, unless it is short."""
    given = list(rows)
    for name, measured in given:
        if options.only not in name or (name in result["rows"] and not options.only):
            continue
        print(f"{name} …", file=sys.stderr)
        result["rows"][name] = measured()
        print(json.dumps(result["rows"][name]), file=sys.stderr)
        result["machine"] = machine(torch.device("cpu"))
        if not options.short:
            result["rows"] = {one: result["rows"][one] for one, _ in given if one in result["rows"]}
            options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
