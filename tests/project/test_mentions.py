"""What the documents mention exists: names, commands with their options, and the errors that they explain."""

from __future__ import annotations

import ast
import contextlib
import io
import re
import runpy
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import counterfactual_probe as cp
from counterfactual_probe.cli import entry as cli
from support.paths import DOCS, ROOT

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("**/*.md"))]
each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*")
# One of the benchmarks is a folder that Python runs.
SCRIPT = re.compile(r"\b(?:examples|benchmarks)/(?:\w+\.py|modularity(?![\w./]))")


# --- names ------------------------------------------------------------------------------------------


def exists(path: str) -> bool:
    """Whether there is this attribute, or field without a default, of what the package offers."""
    found: Any = cp
    for name in path.split("."):
        fields = [vars(base).get("__annotations__", {}) for base in getattr(found, "__mro__", ())]
        if not hasattr(found, name):
            return any(name in own for own in fields)
        found = getattr(found, name)
    return True


@each_document
def test_every_name_exists(document: Path) -> None:
    names = set(re.findall(r"\bcp\.([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)", document.read_text()))
    assert [name for name in sorted(names) if not exists(name)] == []


def test_a_name_that_does_not_exist_is_found() -> None:
    assert exists("InfluenceMaps.load")
    assert exists("Robustness.entropies")  # a field, which the class itself does not have
    assert not exists("Hybridiser")
    assert not exists("InfluenceMaps.lode")


# --- commands and options ---------------------------------------------------------------------------


def code_in(text: str) -> list[str]:
    """The lines of all blocks, and code within sentences, continued lines joined."""
    fenced = re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    inline = re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))
    lines = [line for block in fenced for line in re.sub(r"\\\n\s*", " ", block).splitlines()]
    return [*lines, *(" ".join(code.split()) for code in inline)]


@cache
def options_of(*command: str) -> frozenset[str]:
    """What the help of a command offers."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        assert cli.main([*command, "--help"]) == 0
    return frozenset(OPTION.findall(text.getvalue()))


@cache
def commands() -> frozenset[str]:
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        assert cli.main(["--help"]) == 0
    return frozenset(re.findall(r"^    (\w+)(?: |$)", text.getvalue(), re.MULTILINE))


@cache
def options_in(script: str) -> frozenset[str]:
    """What the help of a script of ours offers."""
    path, text = ROOT / script, io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(text):
        patch.setattr(sys, "argv", [script, "--help"])
        patch.syspath_prepend(path.parent)
        with pytest.raises(SystemExit, match=r"^0$"):
            runpy.run_path(str(path), run_name="__main__")
    return frozenset(OPTION.findall(text.getvalue()))


def unknown_in(line: str, scripts: Iterable[str] = ()) -> list[str]:
    """The commands and options of a line of code that there are not; an option alone may be of one of the scripts."""
    program, _, rest = line.strip().partition(" ")
    if script := SCRIPT.search(line):
        if not (ROOT / script[0]).exists():
            return [script[0]]
        return sorted(set(OPTION.findall(line[script.end() :])) - options_in(script[0]))
    if program == "counterfactual-probe" and rest[:1].isalpha() and rest.split()[0] not in commands():
        return [rest.split()[0]]
    if program == "counterfactual-probe" or (program in commands() and OPTION.search(rest)):
        name = [word for word in line.split() if word in commands()][:1]
        return sorted(set(OPTION.findall(rest)) - options_of(*name))
    if program.startswith("-"):  # an option by itself, of whatever the sentence is about
        known = options_of().union(*map(options_of, commands()), *map(options_in, scripts))
        return sorted(set(OPTION.findall(line)) - known)
    return []


@each_document
def test_every_command_and_option_exists(document: Path) -> None:
    text = document.read_text()
    scripts = {script for script in SCRIPT.findall(text) if (ROOT / script).exists()}
    assert [(line, unknown) for line in code_in(text) if (unknown := unknown_in(line, scripts))] == []


@pytest.mark.parametrize(
    ("line", "unknown"),
    [
        ("counterfactual-probe report NAME --sections spectral", []),
        ("counterfactual-probe report NAME --section spectral", ["--section"]),
        ("counterfactual-probe repot NAME --sections spectral", ["repot"]),
        ("python examples/eye_colours.py --base brown", []),
        ("python examples/eye_colours.py --bases brown", ["--bases"]),
        ("python examples/spectral_training.py --images 20000 --seeds 5", []),  # images: of a file that it imports
        ("python examples/eye_colour.py", ["examples/eye_colour.py"]),
        ("python benchmarks/modularity --toys 3", []),
        ("python benchmarks/modularity --toy 3", ["--toy"]),
        ("--skip-unreadable", []),
        ("--skip-unreadables", ["--skip-unreadables"]),
        ("pip install --no-deps anything", []),
    ],
)
def test_what_does_not_exist_is_found(line: str, unknown: list[str]) -> None:
    assert unknown_in(line) == unknown


# --- errors -----------------------------------------------------------------------------------------

VALUE = re.compile(r"'[^']*'|\([^()]*\)|\S+")


@cache
def texts() -> tuple[tuple[str, ...], ...]:
    """Every text in the library that is no docstring: what is written before, between and after its values."""
    return tuple(text for path in sorted((ROOT / "counterfactual_probe").rglob("*.py")) for text in _texts(path))


def _texts(path: Path) -> Iterator[tuple[str, ...]]:
    tree = ast.parse(path.read_text())
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [str(part.value) if isinstance(part, ast.Constant) else None for part in node.values]
            yield tuple("\0".join("\0" if part is None else part for part in parts).replace("\0\0\0", "\0").split("\0"))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield (node.value,)


def says(text: Sequence[str], message: str) -> bool:
    """Whether a message with its values filled in reads so somewhere; a value is one word, a quotation or a tuple."""
    if any(message in written for written in text):
        return True
    starts = [(i, written[at:]) for i, written in enumerate(text[:-1]) for at in range(len(written) + 1)]
    return any(message.startswith(start) and _goes_on(text[i + 1 :], message[len(start) :]) for i, start in starts)


def _goes_on(text: Sequence[str], message: str) -> bool:
    """Whether a value and then the text make up the message, whose end may be anywhere in the text."""
    for end in range(1, len(message) + 1):
        if VALUE.fullmatch(message[:end]):
            rest = message[end:]
            if not rest or text[0].startswith(rest):
                return True
            if len(text) > 1 and rest.startswith(text[0]) and _goes_on(text[1:], rest[len(text[0]) :]):
                return True
    return False


def test_the_errors_that_are_explained_are_those_that_are_raised() -> None:
    page = (DOCS / "your-own-generator.md").read_text()
    rows = re.findall(r"^\| [^`|]*`([^`]+)`", page.partition("## When")[2].partition("##")[0], re.MULTILINE)
    assert len(rows) >= 9
    assert [row for row in rows if not any(says(text, row) for text in texts())] == []


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("layer 'relu' runs 4 times in one forward; name one call", True),
        ("layer 'relu' runs four or more times in one forward", False),
        ("layer relu ran 4 times in one forward", False),
        ("the moon is full", False),
    ],
)
def test_an_error_that_is_not_raised_is_found(message: str, said: bool) -> None:
    assert any(says(text, message) for text in texts()) == said
