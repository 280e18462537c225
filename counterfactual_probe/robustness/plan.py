"""What is asked of a robustness assessment, checked: modules by layer, and what each classifier calls the classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..base.errors import ProbeError
from ..classifiers import Classifier
from ..generator.adapter import GeneratorAdapter
from ..generator.units import UnitSet, parse_layers, parse_units


@dataclass(frozen=True)
class Plan:
    """The modules of all layers in one row, and where each belongs.

    Attributes:
        layers, modules: names, of the rows and columns of every array.
        sets: a unit set for each module that there is.
        places: (layer, module) of each set, as numbers.
    """

    layers: tuple[str, ...]
    modules: tuple[str, ...]
    sets: tuple[UnitSet, ...]
    places: tuple[tuple[int, int], ...]


def planned(generator: GeneratorAdapter, units_by_layer: Any) -> Plan:
    """The plan of ``{layer: {module: units}}``; a list of unit sets has modules 1, 2 and so on."""
    if not isinstance(units_by_layer, Mapping) or not units_by_layer:
        raise ProbeError(
            f"units_by_layer is {units_by_layer!r:.60}; give {{layer: {{module: units}}}}, such as "
            "{'main.8': {'eyes': [3, 17]}}"
        )
    found = {str(label): _modules(generator, label, given) for label, given in units_by_layer.items()}
    modules = tuple(dict.fromkeys(name for own in found.values() for name in own))
    sets, places = [], []
    for row, own in enumerate(found.values()):
        for column, name in enumerate(modules):
            if name in own:
                sets.append(own[name])
                places.append((row, column))
    return Plan(tuple(found), modules, tuple(sets), tuple(places))


def _modules(generator: GeneratorAdapter, label: Any, given: Any) -> dict[str, UnitSet]:
    if isinstance(given, UnitSet) or not isinstance(given, (Mapping, list, tuple)) or not given:
        raise ProbeError(
            f"units_by_layer holds {given!r:.60} for {label!r}; give {{module: units}}, or a list of unit sets"
        )
    named = given if isinstance(given, Mapping) else {str(k): units for k, units in enumerate(given, 1)}
    return {str(name): _set(generator, label, name, units) for name, units in named.items()}


def _set(generator: GeneratorAdapter, label: Any, name: Any, units: Any) -> UnitSet:
    """One unit set: channels of the layer, or a mapping over whatever layers it names."""
    layers = parse_layers(generator, list(units) if isinstance(units, Mapping) and units else label)
    found = parse_units(units, layers, generator)
    if units is None or len(found) != 1:
        raise ProbeError(
            f"module {name!r} of {label!r} is {units!r:.60}; give one unit set, channels or {{layer: channels}}"
        )
    return found[0]


def two_classes(classes: Any) -> tuple[Any, Any]:
    """The generator's classes of base and source."""
    if isinstance(classes, str) or not isinstance(classes, Sequence) or len(classes) != 2 or classes[0] == classes[1]:
        raise ProbeError(f"classes are {classes!r}; give two different ones, of the bases and of the sources")
    return classes[0], classes[1]


def mapped(
    classifiers: Sequence[Classifier], classes: tuple[Any, Any], class_map: Mapping[Any, Any] | None
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """For each classifier, the numbers of its classes that count as base's and as source's.

    Without a map a classifier's class has the name, or the number, of the generator's. A map holds one or several for
    each; under a classifier's name it may hold another map, for that one alone.
    """
    if class_map is not None and not isinstance(class_map, Mapping):
        raise ProbeError(f"class_map is a {type(class_map).__name__}; give {{generator's class: classifier's classes}}")
    found = []
    for classifier in classifiers:
        own = class_map
        if own is not None and isinstance(own.get(classifier.name), Mapping):
            own = own[classifier.name]
        first, second = (_numbers(classifier, wanted, own) for wanted in classes)
        if both := set(first) & set(second):
            name = classifier.class_name(min(both))
            raise ProbeError(
                f"class {name!r} of classifier {classifier.name!r} counts as {classes[0]!r} and as {classes[1]!r}; "
                "map each to classes of its own"
            )
        found.append((first, second))
    return found


def _numbers(classifier: Classifier, wanted: Any, class_map: Mapping[Any, Any] | None) -> tuple[int, ...]:
    given = wanted
    if class_map is not None:
        if wanted not in class_map:
            raise ProbeError(
                f"class_map names {list(class_map)!r:.80} and not class {wanted!r}; add what classifier "
                f"{classifier.name!r} calls it"
            )
        given = class_map[wanted]
    items = list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]
    if not items:
        raise ProbeError(f"class_map holds no class for {wanted!r}; give one of classifier {classifier.name!r} or more")
    return tuple(dict.fromkeys(classifier.class_index(item) for item in items))
