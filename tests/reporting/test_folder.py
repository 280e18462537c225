"""A report that is killed at any moment leaves an earlier one whole, or no page: never an old page beside new files."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

import counterfactual_probe as cp
from counterfactual_probe.base.files import write_json, write_text
from counterfactual_probe.reporting.folder import replaced

PAGE, LISTING = "report.html", "study.json"
OLD = {"maps-a-draw1.safetensors", "maps-b-draw1.safetensors", "figures/a.png", "modules-a.json"}
NEW = {"maps-a-draw1.safetensors", "maps-c-draw1.safetensors", "figures/a.png", "figures/c.png"}
THEIRS = {"maps-mine.safetensors": "mine", "figures/mine.png": "mine", "notes.txt": "mine"}


def write(folder: Path, version: str, names: set[str]) -> None:
    with replaced(folder, page=PAGE, listing=LISTING) as aside:
        for name in names:
            write_text(aside / name, version)
        write_text(aside / PAGE, version)
        write_json(aside / LISTING, {"version": version, "files": sorted(names)})


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and ".unfinished-report" not in path.parts
    }


def complete(version: str, names: set[str]) -> dict[str, str]:
    listing = json.dumps({"files": sorted(names), "version": version}, indent=1, sort_keys=True) + "\n"
    return {**THEIRS, **dict.fromkeys(names, version), PAGE: version, LISTING: listing}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in THEIRS.items():
        write_text(tmp_path / name, text)
    write(tmp_path, "old", OLD)
    assert contents(tmp_path) == complete("old", OLD)
    return tmp_path


def killed_at(number: int, work: Callable[[], None]) -> bool:
    """Do the work in another process that is killed before its change of the folder of this number; False if done."""
    child = os.fork()
    if child == 0:
        left = number

        def counted(change: Callable[..., object]) -> Callable[..., object]:
            def run(*given: object, **more: object) -> object:
                nonlocal left
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left -= 1
                return change(*given, **more)

            return run

        for name in ("replace", "unlink", "mkdir"):
            setattr(Path, name, counted(getattr(Path, name)))
        work()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_killed_at_any_moment(folder: Path) -> None:
    number, pages = 0, []
    while killed_at(number, lambda: write(folder, "new", NEW)):
        left = contents(folder)
        pages.append(left.get(PAGE))
        if left.get(PAGE) == "old":
            assert {name: left[name] for name in OLD} == dict.fromkeys(OLD, "old")
            assert not any(text == "new" for text in left.values())
        elif left.get(PAGE) == "new":
            assert {name: left.get(name) for name in OLD | NEW} == {
                name: "new" if name in NEW else None for name in OLD | NEW
            }
        assert {name: left[name] for name in THEIRS} == THEIRS
        # Whatever it left, the next report is complete, and nothing else of it stays.
        write(folder, "next", OLD)
        assert contents(folder) == complete("next", OLD)
        write(folder, "old", OLD)
        number += 1
    assert contents(folder) == complete("new", NEW)
    assert [page for page, after in zip(pages, [*pages[1:], "end"], strict=True) if page != after] == [
        "old",
        None,
        "new",
    ]


def test_an_error_leaves_the_earlier_report(folder: Path) -> None:
    with pytest.raises(ZeroDivisionError), replaced(folder, page=PAGE, listing=LISTING) as aside:
        write_text(aside / PAGE, "new")
        raise ZeroDivisionError
    assert contents(folder) == complete("old", OLD)
    assert not (folder / ".unfinished-report").exists()


def test_what_cannot_be_replaced_is_a_sentence(folder: Path) -> None:
    (folder / "maps-c-draw1.safetensors").mkdir()
    with pytest.raises(
        cp.ProbeError, match=r"the report in .* cannot be replaced \(.*maps-c.*\); choose another folder"
    ):
        write(folder, "new", NEW)


def test_without_a_listing_nothing_is_removed(tmp_path: Path) -> None:
    for version in ("old", "new"):
        with replaced(tmp_path, page=PAGE) as aside:
            write_text(aside / f"figures/{version}.png", version)
            write_text(aside / PAGE, version)
    assert contents(tmp_path) == {"figures/old.png": "old", "figures/new.png": "new", PAGE: "new"}
