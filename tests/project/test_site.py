"""The documentation site: no public name is missing from its reference, no page from its contents."""

from __future__ import annotations

import importlib
import re
from types import ModuleType

import pytest

import counterfactual_probe as cp
from counterfactual_probe.cli import entry as cli
from support.paths import DOCS, ROOT

PUBLIC = ["", ".autoencoders", ".classifiers", ".data", ".metrics", ".robustness", ".spectral", ".testing", ".training"]
VERDICTS = {"holds", "in part", "does not hold", "not tried", "(pending)"}


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
