"""The page's JavaScript modules as one script, and the page as one file."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from posixpath import dirname, join, normpath
from typing import Any

from ..base.errors import ProbeError

_IMPORT = re.compile(r'^import \{([^}]*)\} from "([^"]+)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (async function|function|class|const) (\w+)", re.MULTILINE)
_OTHER_FORMS = re.compile(r"^(import|export)\b", re.MULTILINE)
# The page around the explorer, which in a notebook is not ours.
_BODY = "body{margin:0;background:#fbfbf9}@media(prefers-color-scheme:dark){body{background:#131416}}\n"


@cache
def script(entry: str) -> str:
    """The module ``entry`` and all that it imports, as one script: a function for each, in the order of imports.

    >>> script("engine/numbers.js").splitlines()[0]
    '"use strict";'
    """
    made = '"use strict";\n(() => {\n' + "".join(_functions(entry)) + "})();\n"
    if "</script" in made or "<!--" in made:
        raise ProbeError(f"{entry} holds text that would end its script element; write it in two parts")
    return made


@cache
def value(entry: str) -> str:
    """The same as an expression: an object with what the module ``entry`` exports."""
    return "(() => {\n" + "".join(_functions(entry)) + f"return {_variable(entry)};\n}})()"


def _functions(entry: str) -> Iterator[str]:
    for name, source in _modules(entry, []):
        yield _function(name, source)


def _modules(name: str, before: list[str]) -> Iterator[tuple[str, str]]:
    """Names and sources, those that are imported first."""
    if name in before:
        return
    before.append(name)
    source = _front().joinpath(*name.split("/")).read_text(encoding="utf-8")
    for found in _IMPORT.finditer(source):
        yield from _modules(_resolved(name, found[2]), before)
    yield name, source


def _function(name: str, source: str) -> str:
    """A module as a function that is called at once and returns what the module exports."""
    exported = [found[2] for found in _EXPORT.finditer(source)]

    def imported(found: re.Match[str]) -> str:
        return f"const {{{found[1].replace(' as ', ': ')}}} = {_variable(_resolved(name, found[2]))};\n"

    body = _EXPORT.sub(r"\1 \2", _IMPORT.sub(imported, source))
    if _OTHER_FORMS.search(body):
        raise ProbeError(f"{name} imports or exports in a form that bundles do not know; write import {{a}} from …")
    return f"const {_variable(name)} = (() => {{\n{body}return {{ {', '.join(exported)} }};\n}})();\n"


def _resolved(name: str, relative: str) -> str:
    return normpath(join(dirname(name), relative))


def _variable(name: str) -> str:
    return "module_" + re.sub(r"\W", "_", name.removesuffix(".js"))


def _front() -> Traversable:
    return files("counterfactual_probe.explorer").joinpath("front")


@cache
def style() -> str:
    """The page's style sheet."""
    return _front().joinpath("explorer.css").read_text(encoding="utf-8")


def module(entry: str) -> str:
    """The same as a module, for those who load it by ``import``: its default is what ``entry`` exports."""
    return f"export default {value(entry)};\n"


def served_page(contents: dict[str, Any]) -> tuple[str, str]:
    """The page of a server, which answers its requests, and the policy that the server sends with it."""
    return _page("server.js", contents, "", "connect-src 'self'")


def single_file(contents: dict[str, Any], program: dict[str, Any] | None) -> str:
    """The page with everything in it: what it shows, what it computes with, and a policy that forbids all else."""
    return _page("file.js", contents, "" if program is None else embedded(program), "worker-src blob:")[0]


def _page(entry: str, contents: dict[str, Any], program: str, allowed: str) -> tuple[str, str]:
    code, look = script(entry), _BODY + style()
    rules = policy(code, look, allowed)
    values = {
        "policy": rules,
        "title": html.escape(f"{contents['name']} – explorer"),
        "style": look,
        "contents": embedded(contents),
        "program": program,
        "script": code,
    }
    template = _front().joinpath("page.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{ (\w+) \}\}", lambda found: values[found[1]], template), rules


def policy(code: str, look: str, allowed: str) -> str:
    """A content security policy: this script and this style, pictures that the page holds, and one thing more."""
    return (
        f"default-src 'none'; script-src '{_hash(code)}'; style-src '{_hash(look)}'; img-src data:; "
        f"{allowed}; base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def embedded(value: Any) -> str:
    """JSON that can stand in a script element: nothing in it ends the element or begins a comment."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
