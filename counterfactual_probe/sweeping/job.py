"""What a worker does: it runs one command, and writes down how that ended."""

from __future__ import annotations

import contextlib
import os
import runpy
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..base.errors import ProbeError, first_line
from ..base.files import read_json, write_json
from ..version import __version__

OUTCOME, LOG = "outcome.json", "log.txt"
_NAME = "counterfactual-probe: "  # before the sentence of a command that fails


def run_job(arguments: Sequence[str], folder: str, about: dict[str, Any], threads: int) -> None:
    """Run a command of this program in this process, its output in ``log.txt`` of the folder.

    However it ends, but by being killed, ``outcome.json`` says so, with ``about``.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(threads)
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    began, before = time.monotonic(), sys.argv
    with (
        (place / LOG).open("w", encoding="utf-8", errors="backslashreplace") as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        sys.argv = ["counterfactual-probe", *arguments]
        try:
            status, problem = _status()
        finally:
            sys.argv = before
    if status and not problem:
        problem = _sentence((place / LOG).read_text(encoding="utf-8"))
    seconds = round(time.monotonic() - began, 2)
    write_json(place / OUTCOME, about | {"status": status, "problem": problem, "seconds": seconds})


def _status() -> tuple[int, str]:
    """The exit status of the program that ``sys.argv`` names, and what went wrong where it does not say so itself."""
    try:
        runpy.run_module("counterfactual_probe", run_name="__main__", alter_sys=False)
    except SystemExit as done:
        return int(done.code or 0), ""
    except Exception as error:
        traceback.print_exc()
        return 1, first_line(error)
    return 0, ""


def _sentence(log: str) -> str:
    """What a failed command said last."""
    lines = [line for line in log.splitlines() if line.strip()]
    said = [line.removeprefix(_NAME) for line in lines if line.startswith(_NAME)]
    return (said or lines or ["it said nothing"])[-1]


def about_job(command: str, settings: dict[str, Any]) -> dict[str, Any]:
    """What must be equal for the outcome of a job to be that of this one."""
    return {"command": command, "settings": settings, "version": __version__}


def outcome_in(folder: Path) -> dict[str, Any] | None:
    """How the job of a folder ended; None if it has not."""
    if not (folder / OUTCOME).exists():
        return None
    try:
        found = read_json(folder / OUTCOME)
        if {"command", "settings", "version", "status", "problem", "seconds"} <= found.keys():
            return dict(found)
    except (ValueError, AttributeError) as error:
        raise ProbeError(
            f"{folder / OUTCOME} is damaged ({first_line(error)}); delete it to run the job again"
        ) from error
    raise ProbeError(f"{folder / OUTCOME} is not what a job writes; delete it to run the job again")
