"""The folder of a report: a new one is written aside, and takes the place of an earlier one at once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..base.errors import ProbeError
from ..base.files import read_json, write_json
from .section import WRITERS

_ASIDE = ".unfinished-report"
# Whatever a listing says, only files with names of a report's files are removed.
_OWN_FILES = (
    *(f"figures/*{suffix}" for suffix in (".png", ".svg", ".webp")),
    "maps-*.safetensors",
    "stability-*.safetensors",
    "hybrids-*.safetensors",
    "one-source-*.safetensors",
    "modules-*.json",
    "channels-*.csv",
    *(f"{start}-*{suffix}" for start in ("section", "papers") for suffix in WRITERS),
)


@contextmanager
def replaced(folder: Path, *, page: str, listing: str | None = None, again: bool = False) -> Iterator[Path]:
    """A folder inside ``folder`` to write into; when the block ends, its files move up, and replace those there.

    Killed before, the earlier report is whole. Killed while files move, there is no ``page``: never an old one beside
    new files. ``listing`` is the file that says under "files" which are a report's: those of the earlier one that are
    not written again are removed, and no other. Written ``again``, the page is that of the files there, and stays
    until the new one takes its place.
    """
    aside = folder / _ASIDE
    try:
        _made_anew(aside)
        yield aside
        _move_up(aside, folder, page, listing, again)
    except OSError as error:
        raise ProbeError(
            f"the report in {folder} cannot be replaced ({error.strerror}: {error.filename}); choose another folder"
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _made_anew(aside: Path) -> None:
    """An empty folder; a report that was killed left one."""
    if aside.exists():
        shutil.rmtree(aside)
    aside.mkdir(parents=True)


def _move_up(aside: Path, folder: Path, page: str, listing: str | None, again: bool) -> None:
    new = {path.relative_to(aside).as_posix() for path in aside.rglob("*") if path.is_file()}
    last = [name for name in (page, listing) if name in new]
    earlier = _listed(folder, listing)
    if listing is not None:
        # Killed from here on, both reports' files are still known as ours.
        both = write_json(aside / f"both-{listing}", {"files": sorted((earlier | new) - set(last))})
        both.replace(folder / listing)
    if not again:
        (folder / page).unlink(missing_ok=True)
    for name in earlier - new:
        (folder / name).unlink(missing_ok=True)
    for name in [*sorted(new - set(last)), *last]:
        (folder / name).parent.mkdir(exist_ok=True)
        (aside / name).replace(folder / name)


def _listed(folder: Path, listing: str | None) -> set[str]:
    """The files in the folder that its listing calls a report's."""
    if listing is None or not (folder / listing).exists():
        return set()
    try:
        names = set(read_json(folder / listing)["files"])
    except (ValueError, LookupError, TypeError):
        return set()  # another file of this name, which says nothing of a report
    ours = {path.relative_to(folder).as_posix() for pattern in _OWN_FILES for path in folder.glob(pattern)}
    return ours & names
