"""The layout of the package: imports run one way, no circle, nothing crowded or long; and the check sees each fault."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest

from support.house import ADAPTERS, FLOORS, ROOT, SOURCES, TOP, House

SOUND = {
    "__init__.py": "from .low.words import say\n",
    "version.py": "",
    "low/__init__.py": "",
    "low/words.py": "from .letters import A\n\ndef say(a): return a\n",
    "low/letters.py": "A = 1\n",
    "high/__init__.py": "from .talk import talk\n",
    "high/talk.py": "from ..low.words import say\n\ndef talk():\n    from ..version import V\n"
    "    import counterfactual_probe.low.letters\n",
}
LOW_AND_HIGH = (("low", "version"), ("high",), (TOP, "adapters"))


@pytest.fixture(scope="module")
def house() -> House:
    return House()


def built(folder: Path, changes: dict[str, str]) -> House:
    """A small house of two rooms, with some files changed or added."""
    for name, source in {**SOUND, **changes}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return House({TOP: folder}, LOW_AND_HIGH)


def test_the_house_is_in_order(house: House) -> None:
    sys.stdout.write(house.table())  # shown by pytest -s, and when it fails
    assert house.faults() == []


def test_files_and_functions_are_short_on_the_whole(house: House) -> None:
    assert house.lengths_of_files()[0] <= 115
    assert house.lengths_of_functions()[1] <= 21


def test_the_table_counts_what_is_there(house: House) -> None:
    stands_in = SOURCES[TOP] / "adapters/__init__.py"  # in a clone, for the one in adapters/
    modules = [path for folder in SOURCES.values() for path in folder.rglob("*.py") if path != stands_in]
    assert len(house.files) == len(modules) > 150
    assert sum(house.modules_by_folder().values()) == sum(path.stem != "__init__" for path in modules)
    assert house.arrows[f"{TOP}.hybrids.hybridizer"]
    assert all(house.arrows[name] for name in house.files if name.startswith(f"{ADAPTERS}.cards."))
    assert "files in the top folder                       3" in house.table()


def test_the_linters_layers_are_the_same_floors() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    # It sees the folder of the package alone: neither what is imported in the package's own file nor the adapters.
    floors = [sorted({*rooms} - {TOP, "adapters"}) for rooms in FLOORS if {*rooms} != {TOP}]
    assert [sorted(layer.split(" | ")) for layer in reversed(layers)] == floors


def test_every_folder_is_installed(house: House) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["packages"] == sorted(house.modules_by_folder())


def test_contributing_shows_the_rooms(house: House) -> None:
    assert f"```text\n{house.rooms()}\n```\n" in (ROOT / "CONTRIBUTING.md").read_text()


def test_a_small_house_in_order(tmp_path: Path) -> None:
    house = built(tmp_path, {})
    assert house.faults() == []
    assert house.arrows[f"{TOP}.high.talk"] == [f"{TOP}.low.letters", f"{TOP}.low.words", f"{TOP}.version"]
    assert house.arrows[f"{TOP}.low.words"] == [f"{TOP}.low.letters"]


UPWARD = {
    "at the top": "from ..high.talk import talk\n",
    "in a function": "def f():\n    from ..high import talk\n",
    "for type checkers": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..high.talk import talk\n",
    "by its whole name": "import counterfactual_probe.high.talk as talk\n",
    "of the room": "from .. import high\n",
    "of the whole package": "import counterfactual_probe as cp\n",
}


@pytest.mark.parametrize("source", UPWARD.values(), ids=UPWARD)
def test_an_arrow_upwards_is_found(source: str, tmp_path: Path) -> None:
    (fault,) = built(tmp_path, {"low/letters.py": source}).faults()[:1]
    assert fault.startswith(f"{TOP}.low.letters imports {TOP}")
    assert "not on a floor below" in fault


def test_an_arrow_to_a_room_beside_is_found(tmp_path: Path) -> None:
    house = built(tmp_path, {"low/letters.py": "from ..version import V\n"})
    assert house.faults() == [
        f"{TOP}.low.letters imports {TOP}.version, whose room is not on a floor below; turn the arrow round"
    ]


def test_a_room_without_a_floor_is_found(tmp_path: Path) -> None:
    assert built(tmp_path, {"new/__init__.py": ""}).faults() == [
        "new is on no floor; put it into FLOORS and into pyproject's layers"
    ]


def test_the_core_may_not_import_an_adapter(tmp_path: Path) -> None:
    changes = {"adapters/dcgan.py": "", "__init__.py": "from .adapters import dcgan\n"}
    house = House({TOP: built(tmp_path, changes) and tmp_path}, (*LOW_AND_HIGH[:2], ("adapters",), (TOP,)))
    assert [fault.partition(";")[2] for fault in house.faults()] == [" the core finds adapters by entry points only"]


@pytest.mark.parametrize(
    "source",
    [
        "from .words import say\n",
        "def f():\n    from .words import say\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from . import words\n",
    ],
)
def test_a_circle_is_found(source: str, tmp_path: Path) -> None:
    assert built(tmp_path, {"low/letters.py": source}).faults() == [
        f"a circle of imports: {TOP}.low.letters, {TOP}.low.words"
    ]


def test_a_circle_through_three_files_and_a_folder_is_found(tmp_path: Path) -> None:
    changes = {"low/letters.py": "from .deep import x\n", "low/deep/__init__.py": "from ..words import say\n"}
    assert built(tmp_path, changes).faults() == [
        f"a circle of imports: {TOP}.low.deep, {TOP}.low.letters, {TOP}.low.words"
    ]


def test_a_tenth_module_is_found(tmp_path: Path) -> None:
    nine = {f"low/more{i}.py": "" for i in range(7)}
    assert built(tmp_path, nine).faults() == []
    (fault,) = built(tmp_path, {"low/more7.py": ""}).faults()
    assert fault.startswith(f"{TOP}.low has 10 modules beside its __init__, and may have 9;")


def test_a_third_module_at_the_top_is_found(tmp_path: Path) -> None:
    floors = (("low", "version", "extra", "more"), *LOW_AND_HIGH[1:])
    assert House({TOP: built(tmp_path, {"extra.py": ""}) and tmp_path}, floors).faults() == []
    house = House({TOP: built(tmp_path, {"more.py": ""}) and tmp_path}, floors)
    assert [fault.partition(",")[0] for fault in house.faults()] == [f"{TOP} has 3 modules beside its __init__"]


def test_what_is_too_long_is_found(tmp_path: Path) -> None:
    body = "def long():\n" + "    x = 1\n" * 74
    assert built(tmp_path, {"low/letters.py": body + "y = 1\n" * 325}).faults() == []
    found = built(tmp_path, {"low/letters.py": body + "    x = 1\n" + "y = 1\n" * 325}).faults()
    assert [fault.partition(",")[0] for fault in found] == [
        f"{TOP}.low.letters has 401 lines",
        f"{TOP}.low.letters.long has 76 lines",
    ]


def test_a_thirteenth_argument_is_found(tmp_path: Path) -> None:
    names = [f"a{i}" for i in range(13)]
    twelve = f"class C:\n    def f(self, {', '.join(names[:6])}, *, {', '.join(names[6:12])}): ...\n"
    assert built(tmp_path, {"low/letters.py": twelve}).faults() == []
    (fault,) = built(tmp_path, {"low/letters.py": f"async def f({', '.join(names)}): ...\n"}).faults()
    assert fault.startswith(f"{TOP}.low.letters.f has 13 arguments")
