"""Sphinx extension for this site: pages of example files, and references to names where they are documented."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.parsers import Parser
from sphinx.util.inspect import stringify_signature

PACKAGE = "counterfactual_probe"
# Their types are named in signatures. Links to their documentation would need a connection while building.
OTHERS = {"torch", "numpy", "matplotlib", "PIL", *sys.stdlib_module_names}

# The bold names are those that napoleon makes of "Warns:".
_MARKUP = re.compile(r"(``.*?``|:[a-z]+:`[^`]*`|^\s*\.\. .*|^\s*:[^:`]+:|^\*\*\w+\*\* --)")
_ENTRY = re.compile(r" {4}(\w+(?:, \w+)*):")
_SPECIAL = re.compile(r"([|*]|_(?!\w))")


class CodePage(Parser):
    """A file of code as a page, so that links to examples lead to a readable page."""

    supported = ("python",)
    language = "python"

    def parse(self, inputstring: str, document: nodes.document) -> None:
        name = Path(document["source"]).name
        section = nodes.section(ids=[name.replace(".", "-")], names=[name])
        section += nodes.title(text=name)
        section += nodes.literal_block(inputstring, inputstring, language=self.language)
        document += section


class ShellPage(CodePage):
    """The same for a shell script."""

    supported = ("shell",)
    language = "bash"


def own_modules() -> list[ModuleType]:
    return [module for name, module in list(sys.modules.items()) if name.partition(".")[0] == PACKAGE]


def import_types() -> None:
    """Import what modules import for type checkers only, so that names in annotations are known."""
    package = importlib.import_module(PACKAGE)
    for name in package.__all__:
        getattr(package, name)  # which imports its module
    for module in own_modules():
        for node in ast.parse(Path(str(module.__file__)).read_text()).body:
            if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
                for statement in node.body:
                    _import(statement, module)


def _import(statement: ast.stmt, module: ModuleType) -> None:
    try:
        exec(compile(ast.Module([statement], type_ignores=[]), str(module.__file__), "exec"), module.__dict__)
    except ModuleNotFoundError as error:
        if error.name != "pandas":  # optional, and not needed to write the site
            raise
        module.__dict__["pandas"] = SimpleNamespace(DataFrame=type("DataFrame", (), {"__module__": "pandas"}))


class _Unwritable:
    """Stands for a default that cannot be written as Python: a function, or one that is made anew for each object."""

    def __repr__(self) -> str:
        return "..."


def _is_unwritable(default: object) -> bool:
    return default is not inspect.Parameter.empty and repr(default).startswith("<")


def as_written(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Annotations as written in the source: ``Latents | None``, not the union that this alias stands for."""
    if what not in {"class", "function", "method"} or signature is None:
        return signature, returns
    written = inspect.signature(obj)
    parameters = [
        parameter.replace(default=_Unwritable()) if _is_unwritable(parameter.default) else parameter
        for parameter in written.parameters.values()
    ]
    if what == "method" and parameters and parameters[0].name == "self":
        del parameters[0]
    written = written.replace(parameters=parameters)
    if what == "class":
        written = written.replace(return_annotation=written.empty)
    arguments, arrow, result = stringify_signature(written).rpartition(" -> ")
    return (arguments, result) if arrow else (result, None)


def escape(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Escape text such as |a − b|, labels_ and maps-* in docstrings, which reST would read as markup."""
    example = False
    for i, line in enumerate(lines):
        example = bool(line.strip()) and (example or line.lstrip().startswith(">>>"))
        if not example:
            parts = _MARKUP.split(line)
            lines[i] = "".join(part if j % 2 else _SPECIAL.sub(r"\\\1", part) for j, part in enumerate(parts))


def no_members_of_modules(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """``automodule`` shows only a module's docstring; the pages list members themselves, in their own order."""
    return True if what == "module" else None


def one_each(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Split ``low, high: …`` under Attributes into an entry for each; napoleon does so only for arguments."""
    start = next((i for i, line in enumerate(lines) if line.strip() == "Attributes:"), len(lines)) + 1
    end = next((i for i in range(start, len(lines)) if not lines[i].strip()), len(lines))
    entries: list[list[str]] = []
    for line in lines[start:end]:
        if _ENTRY.match(line) or not entries:
            entries.append([])
        entries[-1].append(line)
    each: list[str] = []
    for first, *rest in entries:
        names = _ENTRY.match(first)
        for one in names[1].split(", ") if names else []:
            each += [f"    {one}:{first.partition(':')[2]}", *rest]
        each += [] if names else [first, *rest]
    lines[start:end] = each


def without_type(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Keep napoleon from taking the words before the first colon of a property's docstring for its type."""
    if what in {"property", "attribute", "data"}:
        lines[:0] = ["..", ""]  # an empty comment


def elsewhere(app: Sphinx, env: BuildEnvironment, node: pending_xref, text: nodes.Element) -> nodes.Node | None:
    """Resolve names given without their module, or with the module that defines them.

    Types of other libraries, and private ones, stay plain text in signatures. A name in a role must be documented: if
    it is not, the reference stays unresolved, which is an error.
    """
    if node.get("refdomain") != "py":
        return None
    target = str(node["reftarget"])
    domain: Any = env.get_domain("py")
    last = target.rpartition(".")[2]
    named = [name for name, entry in domain.objects.items() if name.rpartition(".")[2] == last and not entry.aliased]
    full = [name for name in named if name in {f"{PACKAGE}.{target}", f"{PACKAGE}.{last}"}]
    for found in full or (named if len(named) == 1 else []):
        resolved: nodes.Node | None = domain.resolve_xref(env, node["refdoc"], app.builder, "obj", found, node, text)
        return resolved
    first = target.partition(".")[0]
    role = isinstance(text, nodes.literal)
    return text if first in OTHERS or (not role and any(first in vars(module) for module in own_modules())) else None


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_source_suffix(".py", "python")
    app.add_source_suffix(".sh", "shell")
    app.add_source_parser(CodePage)
    app.add_source_parser(ShellPage)
    app.connect("autodoc-skip-member", no_members_of_modules)
    app.connect("autodoc-process-signature", as_written)
    for before_napoleon in (one_each, without_type):
        app.connect("autodoc-process-docstring", before_napoleon, priority=400)
    app.connect("autodoc-process-docstring", escape, priority=600)
    app.connect("missing-reference", elsewhere)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
