"""The documentation site: no public name is missing from its reference, no page from its contents."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest

import counterfactual_probe as cp
from counterfactual_probe.cli import entry as cli
from support.paths import DOCS, ROOT, module_of

PUBLIC = ["", ".autoencoders", ".classifiers", ".data", ".metrics", ".robustness", ".spectral", ".testing", ".training"]
VERDICTS = {"holds", "in part", "does not hold", "undecided", "not tried", "(pending)"}


def documented(pages: dict[str, str]) -> set[int]:
    """The objects, by identity, that directives of these pages name."""
    found = set()
    for text in pages.values():
        module = ""
        for directive, name in re.findall(r"^\.\. (\S+):: (\S+)", text, re.MULTILINE):
            if directive in {"currentmodule", "automodule"}:
                module = name
            if directive == "automodule":
                found.add(id(importlib.import_module(name)))
            elif directive.startswith("auto") or directive == "py:data":
                path, _, last = (name if "." in name else f"{module}.{name}").rpartition(".")
                found.add(id(getattr(importlib.import_module(path), last)))
    return found


def reference() -> dict[str, str]:
    return {page.name: page.read_text() for page in (DOCS / "reference").glob("*.rst")}


def missing(module: ModuleType, pages: dict[str, str]) -> list[str]:
    known = documented(pages)
    return [name for name in module.__all__ if id(getattr(module, name)) not in known]


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_in_the_reference(name: str) -> None:
    assert missing(importlib.import_module(f"counterfactual_probe{name}"), reference()) == []


def test_a_forgotten_name_is_found() -> None:
    pages = {name: text.replace(".. autoclass:: StretchTest\n", "") for name, text in reference().items()}
    assert missing(cp, pages) == ["StretchTest"]


def test_every_page_is_in_the_contents() -> None:
    contents = re.findall(r"<([\w./-]+)>$", (DOCS / "index.md").read_text(), re.MULTILINE)
    assert set(contents) >= {page.stem for page in DOCS.glob("*.md")} - {"index"}
    listed = re.findall(r"^   (\w+)$", (DOCS / "reference" / "index.rst").read_text(), re.MULTILINE)
    assert set(listed) == {page.stem for page in (DOCS / "reference").glob("*.rst")} - {"index"}


def rows() -> list[list[str]]:
    lines = [line for line in (DOCS / "ledger.md").read_text().splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [row for row in cells if row[0] != "claim" and not set(row[0]) <= {"-", "|"}]


def test_every_claim_has_a_verdict_a_figure_and_a_command() -> None:
    assert len(rows()) > 50
    for row in rows():
        assert len(row) == 5, row
        claim, network, verdict, measured, command = row
        assert verdict in VERDICTS, claim
        assert all(cell for cell in row[1:]), claim
        assert measured.startswith("needs ") == (verdict == "not tried"), claim
        assert (network == "–" or command == "–") <= (verdict == "not tried"), claim
        assert ({network, measured, command} == {"(pending)"}) == (verdict == "(pending)"), claim


def test_every_paper_has_claims() -> None:
    titles = re.findall(r"^## (S\d+): (.+)$", (DOCS / "ledger.md").read_text(), re.MULTILINE)
    assert [code for code, _ in titles] == ["S000", "S001", "S002", "S003", "S004"]


def test_the_ledgers_commands_exist() -> None:
    commands = [command for row in rows() for command in re.findall(r"`([^`]+)`", row[4])]
    assert len(commands) > 15
    makefile = (ROOT / "Makefile").read_text()
    for command in commands:
        program, first, *_ = command.split()
        if program == "make":
            assert re.search(rf"^{first}:", makefile, re.MULTILINE), command
        elif program == "counterfactual-probe":
            assert cli.main([first, "--help"]) == 0
        else:
            assert program in {"python", "pytest"}
            assert (ROOT / first).is_file(), command


# --- the gallery of examples ------------------------------------------------------------------------


def gallery() -> dict[str, str]:
    """By the example that a row begins with, its picture."""
    rows = re.findall(r"^\| !\[.+\]\((.+)\) \| \[.+?\]\(\.\./(examples/\S+?)\)", examples_page(), re.MULTILINE)
    return {example: picture for picture, example in rows}


def examples_page() -> str:
    return (DOCS / "examples.md").read_text()


def test_every_example_is_in_the_gallery_and_every_row_has_a_picture() -> None:
    linked = set(re.findall(r"\]\(\.\./(examples/[\w/.]+)\)", examples_page()))
    there = {str(path.relative_to(ROOT)) for path in (ROOT / "examples").glob("*.*") if path.suffix in {".py", ".sh"}}
    assert linked - {"examples/space/live/app.py"} == there
    assert examples_page().count("\n| !") == len(gallery()) > 15
    made = module_of(ROOT / ".ci/pictures.py").GALLERY
    assert {f"images/gallery/{name}.webp" for name in made} == set(gallery().values())
    assert all((DOCS / picture).is_file() for picture in gallery().values())


# --- what a page is for -----------------------------------------------------------------------------

# A page says in its first paragraph what it is for, and when something else serves better.
_ELSE = re.compile(
    r"\b(not|no|nothing|enough|only|instead|skip|without|alone|none|use|take|read|need)\b", re.IGNORECASE
)
_LONGEST = 80  # words


def opening(text: str) -> str:
    """The first paragraph below the title."""
    body = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL).strip()
    title, _, rest = body.partition("\n")
    return rest.strip().partition("\n\n")[0] if title.startswith("# ") else ""


PAGES = sorted(path for path in [*DOCS.glob("**/*.md"), ROOT / "benchmarks/RESULTS.md", ROOT / "CONTRIBUTING.md"])


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_page_says_first_what_it_is_for_and_when_not(page: Path) -> None:
    said = opening(page.read_text())
    assert 10 <= len(said.split()) <= _LONGEST, said
    assert not said.startswith(("|", "-", "!", "`", "#")), said
    assert _ELSE.search(said), said


@pytest.mark.parametrize(
    "text",
    ["# A page\n\n## A section\n", "# A page\n\nIt shows how to do this and that with one thing or another one.\n"],
)
def test_a_page_that_does_not_say_it_is_found(text: str) -> None:
    said = opening(text)
    assert said.startswith("#") or not _ELSE.search(said)
