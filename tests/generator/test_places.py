"""Files of results in which any one entry is missing, or something else: read as they are, or refused."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import pytest

import counterfactual_probe as cp
from support import saved_results
from support.files.mutations import places, put_together, taken_apart

KEY = "counterfactual-probe"
GONE = object()
OTHERS: tuple[Any, ...] = (-1, 10**18, 0.5, True, "", "x", [], [1], [["a"]], {}, {"a": 1})
NAMES = sorted(saved_results.results())


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    value = copy.deepcopy(value)
    parent = value
    for key in path[:-1]:
        parent = parent[key]
    if new is GONE:
        del parent[path[-1]]
    else:
        parent[path[-1]] = copy.deepcopy(new)
    return value


def described(content: bytes, suffix: str) -> Any:
    return json.loads(content if suffix == ".json" else taken_apart(content)[0]["__metadata__"][KEY])


def rewritten(content: bytes, suffix: str, description: Any) -> bytes:
    text = json.dumps(description)
    if suffix == ".json":
        return text.encode()
    header, data = taken_apart(content)
    header["__metadata__"][KEY] = text
    return put_together(json.dumps(header).encode(), data)


def used(kind: Any, path: Path, *, pictures: bool) -> bool:
    """What a user does with a file; whether it is read. Whatever is not a ProbeError passes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            result = kind.load(path)
        except cp.ProbeError:
            return False
        try:
            str(result), result.to_json(), result.to_csv()
            if pictures:
                result._repr_html_()
            result.save(path)
        except cp.ProbeError:
            return False
    return True


def try_all(name: str, tmp_path: Path, values: tuple[Any, ...], deepest: int, *, pictures: bool) -> None:
    result = saved_results.results()[name]
    path = result.save(tmp_path / name)
    content = path.read_bytes()
    description, read = described(content, path.suffix), 0
    assert used(type(result), path, pictures=pictures)  # the control
    tried = [place for place in places(description) if 0 < len(place) <= deepest]
    for place in tried:
        for value in values:
            path.write_bytes(rewritten(content, path.suffix, changed(description, place, value)))
            try:
                read += used(type(result), path, pictures=pictures)
            except Exception as error:
                raise AssertionError(f"{place} {'gone' if value is GONE else f'= {value!r}'}: {error!r}") from error
    assert 0 < read < len(tried) * len(values)  # some entries are needed, and others are not


@pytest.mark.parametrize("name", NAMES)
def test_any_entry_may_be_missing(name: str, tmp_path: Path) -> None:
    try_all(name, tmp_path, (GONE, None), 3, pictures=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_any_entry_may_be_anything(name: str, tmp_path: Path) -> None:
    try_all(name, tmp_path, (GONE, None, *OTHERS), 6, pictures=True)
