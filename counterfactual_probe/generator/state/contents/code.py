"""What a function's code names: globals, attributes and variables of functions around it, and which it assigns."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from opcode import EXTENDED_ARG, opmap
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

_GLOBALS = {opmap["STORE_GLOBAL"], opmap["DELETE_GLOBAL"]}
_ATTRIBUTES = {opmap["STORE_ATTR"], opmap["DELETE_ATTR"]}
_VARIABLES = {opmap["STORE_DEREF"], opmap["DELETE_DEREF"]}
_NAME_BITS = 1 if sys.version_info >= (3, 11) else 0  # before the number of a global's name
_IMPORTS = {opmap["IMPORT_NAME"]}

# Not walked into: they belong to the process, not to the module.
FOREIGN = frozenset(sys.stdlib_module_names) | {"torch", "numpy", "counterfactual_probe"}


def package_of(name: Any) -> str:
    """The top package of a module's name; "" of what is none."""
    return name.partition(".")[0] if isinstance(name, str) else ""


@dataclass(frozen=True)
class Names:
    """Of a function's code, and of the code inside it.

    Attributes:
        read: globals and attributes, in the order in which they are met, and strings that may name some.
        globals, attributes, variables: those that are assigned or deleted.
        owners: globals and variables whose attributes are.
        imports: modules that are imported when it runs.
    """

    read: tuple[str, ...]
    globals: frozenset[str]
    attributes: frozenset[str]
    variables: frozenset[str]
    owners: frozenset[str]
    imports: frozenset[str]


_known: WeakKeyDictionary[CodeType, Names] = WeakKeyDictionary()


def names_in(code: CodeType) -> Names:
    names = _known.get(code)
    if names is None:
        names = _known[code] = _names_in(code)
    return names


def _names_in(code: CodeType) -> Names:
    inner = [names_in(const) for const in code.co_consts if isinstance(const, CodeType)]
    found: dict[str, set[str]] = {kind: set() for kind in ("globals", "attributes", "variables", "owners", "imports")}
    strings = [const for const in code.co_consts if isinstance(const, str) and const.replace(".", "").isidentifier()]
    if "import_module" in code.co_names:
        found["imports"].update(strings)
    if {"setattr", "delattr"} & {*code.co_names}:
        found["attributes"].update(strings)
    argument, loaded = 0, ""
    for kind, byte in zip(code.co_code[::2], code.co_code[1::2], strict=True):
        argument |= byte
        if kind in _GLOBALS:
            found["globals"].add(code.co_names[argument])
        elif kind in _ATTRIBUTES:
            found["attributes"].add(code.co_names[argument])
            found["owners"].add(loaded)
        elif kind in _VARIABLES:
            found["variables"].add(code._varname_from_oparg(argument))  # type: ignore[attr-defined]
        elif kind in _IMPORTS:
            found["imports"].add(code.co_names[argument])
        if kind == opmap["LOAD_GLOBAL"]:
            loaded = code.co_names[argument >> _NAME_BITS]
        elif kind == opmap["LOAD_DEREF"]:
            loaded = code._varname_from_oparg(argument)  # type: ignore[attr-defined]
        elif kind not in (EXTENDED_ARG, opmap.get("CACHE", EXTENDED_ARG)):
            loaded = ""
        argument = argument << 8 if kind == EXTENDED_ARG else 0
    read = dict.fromkeys([*code.co_names, *strings, *(name for names in inner for name in names.read)])
    return Names(
        tuple(read),
        **{kind: frozenset(names).union(*(getattr(each, kind) for each in inner)) for kind, names in found.items()},
    )


class Named(NamedTuple):
    """A name in a dict of globals, and whether code assigns it."""

    scope: dict[str, Any]
    name: str
    assigned: bool


def globals_named(function: FunctionType) -> Iterator[Named]:
    """The globals that a function's code names, and those of the user's modules that it reaches by name."""
    names, scope = names_in(function.__code__), function.__globals__
    imported = [
        sys.modules.get(name) or sys.modules.get(f"{scope.get('__package__')}.{name}") for name in names.imports
    ]
    scopes = [scope, *(vars(module) for module in imported if _is_users(module))]
    for inside in scopes:
        assigned = names.globals if inside is scope else names.attributes
        if inside is scope and "globals" in names.read:  # any of them
            assigned = frozenset(name for name in scope if not name.startswith("__")) | assigned
        for name in {*assigned} - inside.keys():
            yield Named(inside, name, assigned=True)
        for name in dict.fromkeys([*names.read, *(assigned if inside is scope else ())]):
            if name in inside:
                value = inside[name]
                if _is_users(value):
                    if all(vars(value) is not other for other in scopes):
                        scopes.append(vars(value))
                else:
                    yield Named(inside, name, name in assigned)


def _is_users(module: Any) -> bool:
    return isinstance(module, ModuleType) and package_of(vars(module).get("__name__")) not in FOREIGN
