"""Modules by name: those that are given, in whatever form, and the one that a name means."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

from ..base.errors import ProbeError, brief, first_few, text
from ..base.hub.address import is_on_hub
from ..generator.adapter import GeneratorAdapter
from ..generator.units import UnitSet
from ..generator.units.axis import FEATURE
from ..modules.finder import ModuleFinder
from ..registry.modules import MODULES, named_sets, read_modules, require_same_weights

# A fitted finder, the path of a file (also on the hub), named unit sets, units by name, or several of these.
ModulesLike: TypeAlias = "ModuleFinder | str | os.PathLike[str] | UnitSet | Mapping[str, Any] | Sequence[Any]"


def named_modules(generator: GeneratorAdapter, given: ModulesLike | None) -> list[UnitSet]:
    """The modules as unit sets, each under its name; by default those of the folder that the generator is from.

    A ProbeError where those of a finder or a file are known to be of other weights.

    >>> named_modules(gen, {"eyes": {"main.8": [3, 17]}})  # doctest: +SKIP
    [UnitSet(main.8: 3, 17; 'eyes')]
    """
    if given is None:
        return list(_beside(generator))
    found = list(_named(generator, given))
    if not found:
        raise ProbeError("modules is empty; give a fitted ModuleFinder, the file of 'modules', or unit sets by name")
    return found


def chosen_module(modules: Sequence[UnitSet], name: Any) -> UnitSet:
    """The module of this name, or the only one whose name begins so, in capitals or not.

    >>> modules = [UnitSet({"main.8": (3,)}, "eyes and mouth"), UnitSet({"main.8": (4,)}, "frame")]
    >>> chosen_module(modules, "eyes")
    UnitSet(main.8: 3; 'eyes and mouth')
    """
    wanted = text(name, "the module").strip()
    for fits in (
        [module for module in modules if module.name == wanted],
        [module for module in modules if module.name.casefold() == wanted.casefold()],
        [module for module in modules if wanted and module.name.casefold().startswith(wanted.casefold())],
    ):
        if len(fits) == 1:
            return fits[0]
        if fits:
            raise ProbeError(f"{wanted!r} may be any of {_listed(fits)}; write the name in full, or give fewer modules")
    raise ProbeError(f"no module is called {brief(name)}; there are {_listed(modules)}")


def axis_of(module: UnitSet) -> Literal["channel", "token", "head"]:
    """What the module's units are, as :class:`Hybridizer` takes it; a ProbeError for features."""
    if module.kind == FEATURE:
        raise ProbeError(
            f"module {module.name!r} is of features, which their basis alone decodes; set them with "
            "cp.Hybridizer(gen, layer, features=basis)"
        )
    return cast(Literal["channel", "token", "head"], module.kind)


def _listed(modules: Sequence[UnitSet]) -> str:
    """The names, with the layers where several modules have the same."""
    names = [module.name for module in modules]
    shown = [
        repr(name) if names.count(name) == 1 else f"{name!r} of {'+'.join(sorted(module))}"
        for name, module in zip(names, modules, strict=True)
    ]
    return first_few(shown, 12)


def _beside(generator: GeneratorAdapter) -> Iterator[UnitSet]:
    file = None if generator.folder is None else generator.folder / MODULES
    if file is None or not file.is_file():
        where = "was opened from no folder or repository" if file is None else f"has no {MODULES} in {file.parent}"
        raise ProbeError(
            f"no modules are given, and {generator.name} {where}; give modules=, such as a fitted ModuleFinder, the "
            "file of 'modules', or hf:user/name/modules.json"
        )
    yield from named_sets(file)


def _named(generator: GeneratorAdapter, given: Any) -> Iterator[UnitSet]:
    if isinstance(given, ModuleFinder):
        yield from _of_finder(generator, given, "given")
    elif isinstance(given, (str, os.PathLike)):
        yield from _of_file(generator, given)
    elif isinstance(given, UnitSet):
        if not given.name:
            raise ProbeError(f"the module {given!r} has no name; give it one, with .named('eyes')")
        yield given
    elif isinstance(given, Mapping):
        for name, units in given.items():
            yield _of_units(name, units)
    elif isinstance(given, Sequence):
        for item in given:
            yield from _named(generator, item)
    else:
        raise ProbeError(
            f"modules is {brief(given)}; give a fitted ModuleFinder, the file of 'modules', or unit sets by name"
        )


def _of_finder(generator: GeneratorAdapter, finder: ModuleFinder, what: str) -> Iterator[UnitSet]:
    names, sets = finder.names_, finder.unit_sets()
    require_same_weights(generator, finder.provenance_.get("maps"), what)
    yield from (item.named(name) for name, item in zip(names, sets, strict=True) if item.size)


def _of_file(generator: GeneratorAdapter, path: str | os.PathLike[str]) -> Iterator[UnitSet]:
    """Of a file that a command or a report wrote, or ``finder.save``; on this machine or on the hub."""
    name = str(path) if is_on_hub(path) else Path(path).name
    if name.endswith(ModuleFinder.SUFFIX):
        yield from _of_finder(generator, ModuleFinder.load(path), f"of {path}")
        return
    require_same_weights(generator, read_modules(path).get("provenance"), f"of {path}")
    yield from named_sets(path)


def _of_units(name: Any, units: Any) -> UnitSet:
    if isinstance(units, UnitSet):
        return units.named(text(name, "a module's name"))
    try:
        channels = {layer: tuple(map(int, some)) for layer, some in units.items()}
    except (AttributeError, TypeError, ValueError):
        raise ProbeError(
            f"the units of module {name!r} are {brief(units)}; give {{layer: [numbers]}}, such as {{'main.8': [3, 17]}}"
        ) from None
    return UnitSet(channels, text(name, "a module's name"))
