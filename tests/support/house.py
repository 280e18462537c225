"""The layout of the package, measured: folders as rooms, imports between them, lengths of files and functions.

``python tests/support/house.py`` prints the table and every fault. Imports are read from the source, so those inside
functions and those for type checkers count like all others.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

ROOT = Path(__file__).parent.parent.parent
TOP = "counterfactual_probe"
ADAPTERS = f"{TOP}.adapters"
SOURCES = {TOP: ROOT / TOP, ADAPTERS: ROOT / "adapters"}

# Ground first. A room imports from the floors below its own, never from a room beside it.
FLOORS = (
    ("base", "version"),
    ("distributed", "generator"),
    ("autoencoders", "bases", "engine", "metrics", "registry"),
    ("classifiers", "data", "hybrids", "influence", "invariance", "inversion", "spectral"),
    ("fidelity", "modules", "training"),
    ("adapters", "editing", "parts", "robustness", "testing"),
    ("exchanging", "reporting", "sweeping"),
    ("explorer", "sharing"),
    (TOP,),
    ("cli",),
    ("__main__",),
)
FILES_AT_THE_TOP = 3  # __init__, __main__ and version
MODULES_IN_A_FOLDER = 9  # beside __init__
LINES_OF_A_FILE = 400
LINES_OF_A_FUNCTION = 75
ARGUMENTS = 12
# Public signatures that are older than the rule.
MORE_ARGUMENTS = {f"{TOP}.influence.influence_map.attribute": 16, f"{TOP}.training.train.train": 17}
_A_DOCSTRING_ALONE = 3  # lines of an __init__ that would only lower the median


@dataclass(frozen=True)
class File:
    """A module of the house."""

    name: str  # dotted; of an __init__, its package
    package: str  # the folder that it lies in
    tree: ast.Module
    lines: int

    @property
    def room(self) -> str:
        """The top package itself, a module beside it, or the folder in it that everything below belongs to."""
        return TOP if self.name == TOP else self.name.split(".")[1]

    def functions(self) -> Iterator[tuple[str, int, int]]:
        """Each function's name, lines from ``def`` to its end, and arguments."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                names = [one.arg for one in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                yield f"{self.name}.{node.name}", lines, len(names) - (names[:1] in (["self"], ["cls"]))

    def imports(self) -> Iterator[tuple[str, str]]:
        """(module, name in it, "" for the module itself), with relative ones made absolute."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((alias.name, "") for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                parts = self.package.split(".")
                around = parts[: len(parts) - node.level + 1] if node.level else []
                module = ".".join([*around, *([node.module] if node.module else [])])
                yield from ((module, alias.name) for alias in node.names)


class House:
    """Every file of the packages, and the files that each imports from.

    Args:
        sources: the folder of each package; one inside another may lie elsewhere.
        floors: rooms by floor, ground first.
    """

    def __init__(self, sources: Mapping[str, Path] = SOURCES, floors: Sequence[Sequence[str]] = FLOORS) -> None:
        self.files = {file.name: file for package, folder in sources.items() for file in _read(package, folder)}
        self.arrows = {name: self._imported(file) for name, file in self.files.items()}
        self.floor = {room: number for number, rooms in enumerate(floors, 1) for room in rooms}

    def _imported(self, file: File) -> list[str]:
        named = {f"{module}.{name}" if f"{module}.{name}" in self.files else module for module, name in file.imports()}
        return sorted((named & self.files.keys()) - {file.name})

    def arrows_between_rooms(self) -> dict[tuple[str, str], tuple[str, str]]:
        """{(room, imported room): an example, by files}."""
        found: dict[tuple[str, str], tuple[str, str]] = {}
        for name, imported in self.arrows.items():
            for other in imported:
                rooms = self.files[name].room, self.files[other].room
                if rooms[0] != rooms[1]:
                    found.setdefault(rooms, (name, other))
        return found

    def modules_by_folder(self) -> Counter[str]:
        """How many modules lie in each folder, beside its __init__."""
        counted = Counter({file.package: 0 for file in self.files.values()})
        counted.update(file.package for file in self.files.values() if file.name != file.package)
        return counted

    def faults(self) -> list[str]:
        """What is against the rules, one sentence each."""
        return [*self._wrong_ways(), *self._circles(), *self._crowded(), *self._long()]

    def _wrong_ways(self) -> Iterator[str]:
        for room in sorted({file.room for file in self.files.values()} - self.floor.keys()):
            yield f"{room} is on no floor; put it into FLOORS and into pyproject's layers"
        for (room, other), (importer, imported) in self.arrows_between_rooms().items():
            if self.floor.get(room, 0) <= self.floor.get(other, 0):
                yield f"{importer} imports {imported}, whose room is not on a floor below; turn the arrow round"
            elif other == "adapters":
                yield f"{importer} imports {imported}; the core finds adapters by entry points only"

    def _circles(self) -> Iterator[str]:
        """Strongly connected files, by Tarjan's algorithm."""
        order: dict[str, int] = {}
        low: dict[str, int] = {}
        stack: list[str] = []

        def visit(name: str) -> Iterator[list[str]]:
            order[name] = low[name] = len(order)
            stack.append(name)
            for other in self.arrows[name]:
                if other not in order:
                    yield from visit(other)
                    low[name] = min(low[name], low[other])
                elif other in stack:
                    low[name] = min(low[name], order[other])
            if low[name] == order[name]:
                at = stack.index(name)
                yield stack[at:]
                del stack[at:]

        for name in self.files:
            if name not in order:
                yield from (f"a circle of imports: {', '.join(sorted(c))}" for c in visit(name) if len(c) > 1)

    def _crowded(self) -> Iterator[str]:
        for folder, modules in self.modules_by_folder().items():
            most = FILES_AT_THE_TOP - 1 if folder == TOP else MODULES_IN_A_FOLDER
            if modules > most:
                yield f"{folder} has {modules} modules beside its __init__, and may have {most}; make a sub-folder"

    def _long(self) -> Iterator[str]:
        for file in self.files.values():
            if file.lines > LINES_OF_A_FILE:
                yield f"{file.name} has {file.lines} lines, and may have {LINES_OF_A_FILE}; split it"
            for function, lines, arguments in file.functions():
                if lines > LINES_OF_A_FUNCTION:
                    yield f"{function} has {lines} lines, and may have {LINES_OF_A_FUNCTION}; split it"
                if arguments > MORE_ARGUMENTS.get(function, ARGUMENTS):
                    yield f"{function} has {arguments} arguments, and may have {ARGUMENTS}; group some of them"

    def _between_folders(self) -> set[tuple[str, str]]:
        pairs = {
            (self.files[name].package, self.files[other].package) for name in self.files for other in self.arrows[name]
        }
        return {(one, other) for one, other in pairs if one != other}

    def lengths_of_files(self) -> tuple[float, float, int]:
        """Median, ninetieth percentile and largest."""
        return _spread(file.lines for file in self.files.values() if file.lines > _A_DOCSTRING_ALONE)

    def lengths_of_functions(self) -> tuple[float, float, int]:
        return _spread(lines for file in self.files.values() for _, lines, _ in file.functions())

    def table(self) -> str:
        """The figures by which houses are compared, then modules by folder and rooms by floor."""
        folders = self.modules_by_folder()
        file, ninth, longest = self.lengths_of_files()
        figures = {
            "files in the top folder": folders[TOP] + 1,
            "most modules in a folder (without __init__)": max(folders.values()),
            "folders / floors": f"{len(folders)} / {len(set(self.floor.values()))}",
            "arrows between folders, not downwards": f"{len(self._between_folders())}, {len([*self._wrong_ways()])}",
            "circles, type imports counted": len([*self._circles()]),
            "lines of a file: median, 90 %, longest": f"{file:.0f}, {ninth:.0f}, {longest}",
            "lines of a function: median, 90 %, longest": "{:.0f}, {:.0f}, {}".format(*self.lengths_of_functions()),
        }
        lines = [f"{name:45} {value}" for name, value in figures.items()]
        lines += ["", *(f"{count:3} {folder}" for folder, count in sorted(folders.items()))]
        floors: dict[int, list[str]] = {}
        for room, number in self.floor.items():
            floors.setdefault(number, []).append(room)
        return "\n".join([*lines, "", *(f"floor {n}: {', '.join(sorted(rooms))}" for n, rooms in floors.items())])

    def rooms(self) -> str:
        """The folders by floor, the top one first, each with the first paragraph of its docstring: for CONTRIBUTING."""
        lines = []
        for file in sorted(self.files.values(), key=lambda file: (-self.floor.get(file.room, 0), file.name)):
            if file.name == file.package:
                depth = file.name.count(".")
                name = f"{'  ' * (depth - 1)}{file.name.rpartition('.')[2]}/" if depth else "__init__.py"
                said = (ast.get_docstring(file.tree) or "").split("\n\n")[0]
                lines.append(f"{self.floor.get(file.room, '?')}  {name:15} {' '.join(said.split())}")
        return "\n".join(lines)


def _spread(lengths: Iterable[int]) -> tuple[float, float, int]:
    ordered = sorted(lengths)
    return median(ordered), quantiles(ordered, n=10)[-1], ordered[-1]


def _read(package: str, folder: Path) -> Iterator[File]:
    for path in sorted(folder.rglob("*.py")):
        inside = [package, *path.relative_to(folder).parts[:-1]]
        name = ".".join(inside if path.stem == "__init__" else [*inside, path.stem])
        source = path.read_text()
        yield File(name, ".".join(inside), ast.parse(source), len(source.splitlines()))


if __name__ == "__main__":
    house = House()
    faults = [f"fault: {fault}" for fault in house.faults()]
    sys.stdout.write("\n".join([house.table(), "", house.rooms(), *faults, ""]))
    sys.exit(bool(house.faults()))
