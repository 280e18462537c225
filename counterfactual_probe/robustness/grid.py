"""The arguments of a robustness assessment, checked: modules by layer, and each classifier's numbers of the classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..base.errors import ProbeError
from ..classifiers import Classifier
from ..generator.adapter import GeneratorAdapter
from ..generator.units import UnitSet, parse_layers, parse_units

# The numbers of a classifier's classes that count as base's, and those that count as source's.
ClassNumbers: TypeAlias = "tuple[tuple[int, ...], tuple[int, ...]]"


@dataclass(frozen=True)
class ModuleGrid:
    """The modules of all layers: a grid of layers and modules with gaps, and its unit sets in one row.

    Attributes:
        layers, modules: names, of the rows and columns of every array.
        sets: a unit set for each module that there is.
        places: (layer, module) of each set, as numbers.
    """

    layers: tuple[str, ...]
    modules: tuple[str, ...]
    sets: tuple[UnitSet, ...]
    places: tuple[tuple[int, int], ...]


def module_grid(generator: GeneratorAdapter, units_by_layer: Any) -> ModuleGrid:
    """The grid of ``{layer: {module: units}}``; in a list of unit sets, modules are named 1, 2 and so on."""
    if not isinstance(units_by_layer, Mapping) or not units_by_layer:
        raise ProbeError(
            f"units_by_layer is {units_by_layer!r:.60}; give {{layer: {{module: units}}}}, such as "
            "{'main.8': {'eyes': [3, 17]}}"
        )
    by_layer = {str(label): _unit_sets(generator, label, given) for label, given in units_by_layer.items()}
    modules = tuple(dict.fromkeys(name for by_module in by_layer.values() for name in by_module))
    sets, places = [], []
    for row, by_module in enumerate(by_layer.values()):
        for column, name in enumerate(modules):
            if name in by_module:
                sets.append(by_module[name])
                places.append((row, column))
    return ModuleGrid(tuple(by_layer), modules, tuple(sets), tuple(places))


def two_classes(classes: Any) -> tuple[Any, Any]:
    """The generator's classes of base and source."""
    if isinstance(classes, str) or not isinstance(classes, Sequence) or len(classes) != 2 or classes[0] == classes[1]:
        raise ProbeError(f"classes are {classes!r}; give two different ones, of the bases and of the sources")
    return classes[0], classes[1]


def class_numbers(
    classifiers: Sequence[Classifier], classes: tuple[Any, Any], class_map: Mapping[Any, Any] | None
) -> list[ClassNumbers]:
    """For each classifier, the numbers of its classes that count as base's and as source's.

    Without a map, a classifier's class is the one with the name, or the number, of the generator's. A map holds one or
    several for each; under a classifier's name it may hold another map, for that classifier alone.
    """
    if class_map is not None and not isinstance(class_map, Mapping):
        raise ProbeError(f"class_map is a {type(class_map).__name__}; give {{generator's class: classifier's classes}}")
    return [_numbers_of_both(classifier, classes, class_map) for classifier in classifiers]


def _unit_sets(generator: GeneratorAdapter, label: Any, given: Any) -> dict[str, UnitSet]:
    """The modules of one layer, by name."""
    if isinstance(given, UnitSet) or not isinstance(given, (Mapping, list, tuple)) or not given:
        raise ProbeError(
            f"units_by_layer holds {given!r:.60} for {label!r}; give {{module: units}}, or a list of unit sets"
        )
    named = given if isinstance(given, Mapping) else {str(k): units for k, units in enumerate(given, 1)}
    return {str(name): _unit_set(generator, label, name, units) for name, units in named.items()}


def _unit_set(generator: GeneratorAdapter, label: Any, name: Any, units: Any) -> UnitSet:
    """One unit set: channels of the layer, or a mapping over whatever layers it names."""
    layers = parse_layers(generator, list(units) if isinstance(units, Mapping) and units else label)
    sets = parse_units(units, layers, generator)
    if units is None or len(sets) != 1:
        raise ProbeError(
            f"module {name!r} of {label!r} is {units!r:.60}; give one unit set, channels or {{layer: channels}}"
        )
    return sets[0]


def _numbers_of_both(
    classifier: Classifier, classes: tuple[Any, Any], class_map: Mapping[Any, Any] | None
) -> ClassNumbers:
    if class_map is not None and isinstance(class_map.get(classifier.name), Mapping):
        class_map = class_map[classifier.name]
    base, source = (_numbers_of_class(classifier, name, class_map) for name in classes)
    if shared := set(base) & set(source):
        name = classifier.class_name(min(shared))
        raise ProbeError(
            f"class {name!r} of classifier {classifier.name!r} counts as {classes[0]!r} and as {classes[1]!r}; "
            "map each to classes of its own"
        )
    return base, source


def _numbers_of_class(classifier: Classifier, name: Any, class_map: Mapping[Any, Any] | None) -> tuple[int, ...]:
    given = name
    if class_map is not None:
        if name not in class_map:
            raise ProbeError(
                f"class_map names {list(class_map)!r:.80} and not class {name!r}; add what classifier "
                f"{classifier.name!r} calls it"
            )
        given = class_map[name]
    items = list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]
    if not items:
        raise ProbeError(f"class_map holds no class for {name!r}; give one of classifier {classifier.name!r} or more")
    return tuple(dict.fromkeys(classifier.class_index(item) for item in items))
