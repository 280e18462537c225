"""The folder that a command writes into, and what may be replaced there."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ...base.errors import ProbeError
from ...version import __version__

RECORD = ".command.json"  # beside the results of a command: how they were made
# Where results go and how a run looks make no difference to them.
_OF_NO_MATTER = ("run", "typed", "out", "save", "force", "progress", "checkpoint")


def output_options(parser: argparse.ArgumentParser, out: str) -> None:
    """Where to write, and whether over results of another run."""
    parser.add_argument("--out", type=os.path.expanduser, default=out, help=f"folder to write into (default {out})")
    force_option(parser)


def force_option(parser: argparse.ArgumentParser) -> None:
    """Whether to write over results of another run."""
    parser.add_argument("--force", action="store_true", help="replace results of another run that are there")


def output_folder(options: argparse.Namespace) -> Path:
    """Where a command writes, as ``--out`` says."""
    from ...base.files import as_path

    return as_path(options.out)


@contextmanager
def results(options: argparse.Namespace, *names: str, folder: Path | None = None) -> Iterator[Path]:
    """The folder for results whose files start with these names, by default ``--out``, before anything long is run.

    Raise a ProbeError where it cannot be written, or where results of other arguments are and ``--force`` is not given.
    When the block ends, the arguments are recorded beside the results, so that the same command may run again.
    """
    from ...base.files import missing_folders, require_writable, write_json

    folder, record = folder or output_folder(options), _record(options)
    made = missing_folders(folder)
    others = [name for name in names if _is_of_another_run(folder, name, record, options.force)]
    require_writable(folder)
    for name in names:
        if name in others:  # until they are replaced, nothing says how the files there were made
            (folder / f"{name}{RECORD}").unlink(missing_ok=True)
        else:  # now, so that a run that is interrupted may be begun again
            write_json(folder / f"{name}{RECORD}", record)
    try:
        yield folder
    except BaseException:
        _leave_no_trace(folder, names, made=made)
        raise
    for name in others:
        write_json(folder / f"{name}{RECORD}", record)


def _leave_no_trace(folder: Path, names: Sequence[str], *, made: Sequence[Path]) -> None:
    """Of a run that ended before there was any result; of folders, those that it has made."""
    from ...base.files import remove_empty

    with suppress(OSError):
        for name in names:
            if not _files(folder, name):
                (folder / f"{name}{RECORD}").unlink(missing_ok=True)
    remove_empty(made)


def _record(options: argparse.Namespace) -> dict[str, Any]:
    given = {name: value for name, value in sorted(vars(options).items()) if name not in _OF_NO_MATTER}
    return {"version": __version__, "arguments": given}


def _is_of_another_run(folder: Path, name: str, record: dict[str, Any], force: bool) -> bool:
    there = sorted(path.name for path in _files(folder, name))
    differences = _differences(folder / f"{name}{RECORD}", record) if there else ""
    if differences and not force:
        raise ProbeError(
            f"{folder / there[0]} is there already, {differences}; give --force to replace it, or another --out"
        )
    return bool(differences)


def _files(folder: Path, name: str) -> Sequence[Path]:
    try:
        return [path for path in folder.iterdir() if path.stem == name]  # a record has another stem
    except OSError:  # there is no such folder, or it cannot be read: writing will say so
        return []


def _differences(path: Path, record: dict[str, Any]) -> str:
    """How the recorded arguments differ from those of now, in words; nothing if they do not."""
    from ...base.files import read_json

    try:
        earlier = read_json(path)["arguments"]
        now = record["arguments"]
        changed = [name for name in now if earlier.get(name) != now[name]]
    except (ProbeError, ValueError, LookupError, TypeError, AttributeError):
        return "and nothing beside it says how it was made"
    return "".join(
        f"{' and' if number else 'made with'} --{name.replace('_', '-')} {earlier.get(name)}, not {now[name]}"
        for number, name in enumerate(changed[:2])
    )
