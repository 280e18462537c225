"""The package's names: each there when it is asked for, in any order, and nothing else offered."""

from __future__ import annotations

import ast
import importlib
import pickle
import random
from importlib.util import find_spec, resolve_name
from pathlib import Path
from types import ModuleType

import pytest

import counterfactual_probe as cp
from support.processes import run

PACKAGE = "counterfactual_probe"
ROOMS = sorted(path.parent.name for path in Path(str(cp.__file__)).parent.glob("*/__init__.py"))


def for_type_checkers() -> dict[str, str]:
    """The names that are imported for type checkers, with the modules that they come from."""
    tree = ast.parse(Path(str(cp.__file__)).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    nodes = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    assert len(nodes) == len(block.body)
    return {
        alias.asname or alias.name: resolve_name("." * node.level + (node.module or ""), PACKAGE)
        for node in nodes
        for alias in node.names
    }


def test_type_checkers_are_told_what_is_there_at_run_time() -> None:
    told = for_type_checkers()
    assert {*told, "__version__"} == set(cp.__all__)
    for name, module in told.items():
        assert getattr(cp, name) is getattr(importlib.import_module(module), name), name


def test_every_name_is_defined_where_the_package_looks_for_it() -> None:
    assert set(cp._HOMES) <= set(cp.__all__)
    for name, home in cp._HOMES.items():
        found = getattr(cp, name)
        assert (found.__module__, found.__name__) == (f"{PACKAGE}.{home}", name)
        assert pickle.loads(pickle.dumps(found)) is found


@pytest.mark.long
@pytest.mark.parametrize("order", ["backwards", "shuffled", "rooms first"])
def test_names_resolve_in_any_order_in_a_fresh_interpreter(order: str) -> None:
    names = sorted(cp.__all__)
    if order == "backwards":
        names.reverse()
    elif order == "shuffled":
        random.Random(order).shuffle(names)
    first = [f"import {PACKAGE}.{room}" for room in ROOMS] if order == "rooms first" else []
    asked = [f"print({name!r}, type(cp.{name}).__name__)" for name in names]
    told = run("\n".join([*first, f"import {PACKAGE} as cp", *asked]))
    assert told.splitlines() == [f"{name} {type(getattr(cp, name)).__name__}" for name in names]


STARRED = f"""
import pydoc
import {PACKAGE} as cp
before = dir(cp)
from {PACKAGE} import *
print(set(cp.__all__) - set(globals()))
print(before == dir(cp) == cp.__all__)
print(pydoc.render_doc(cp, renderer=pydoc.plaintext))
"""


@pytest.fixture(scope="module")
def starred() -> list[str]:
    """A fresh interpreter after a star import: which names are missing, whether only public ones are offered, help."""
    return run(STARRED).split("\n", 2)


def test_a_star_import_gives_all_of_them(starred: list[str]) -> None:
    assert starred[0] == "set()"


def test_only_public_names_are_offered(starred: list[str]) -> None:
    assert starred[1] == "True"
    assert dir(cp) == cp.__all__ == sorted(cp.__all__)
    dir(cp).clear()  # a copy
    assert dir(cp)


def test_no_module_can_take_the_place_of_a_public_name() -> None:
    shared = [name for name in cp.__all__ if find_spec(f"{PACKAGE}.{name}")]
    assert shared == ["autoencoders", "bases", "metrics"]
    assert all(isinstance(getattr(cp, name), ModuleType) for name in shared)


def test_rooms_can_be_reached_without_importing_them() -> None:
    code = f"import {PACKAGE} as cp\nfor room in {ROOMS!r}: print(getattr(cp, room).__name__)"
    assert run(code).split() == [f"{PACKAGE}.{room}" for room in ROOMS]
    assert "data" in ROOMS


def test_an_unknown_name_gets_the_nearest() -> None:
    message = rf"^module '{PACKAGE}' has no attribute 'Hybridiser'; nearest: 'Hybridizer', 'Hybrids'"
    with pytest.raises(AttributeError, match=message):
        _ = cp.Hybridiser  # type: ignore[attr-defined]
    with pytest.raises(ImportError, match="Hybridiser"):
        exec(f"from {PACKAGE} import Hybridiser")
    for name in ("no.such", "", "__wrapped__", "cli.entry"):
        assert not hasattr(cp, name)


def test_help_lists_what_is_public(starred: list[str]) -> None:
    for name in ("class Hybridizer", "train(", "open a pretrained image generator"):
        assert name in starred[2]
    assert "_HOMES" not in starred[2]
