"""Rows for other programs: what is written is read back, whatever the names."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from counterfactual_probe.base.display.records import csv_text, dataframe, guarded, json_ready, unguarded
from counterfactual_probe.base.errors import ProbeError

# What csv itself cannot keep apart: "\r" at the end of a line is a line break to every reader.
NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), max_size=30)


@given(rows=st.lists(st.tuples(NAMES, st.floats(allow_nan=False)), min_size=1, max_size=5))
def test_a_table_is_read_back(rows: list[tuple[str, float]]) -> None:
    text = csv_text({"name": name, "value": value} for name, value in rows)
    found = list(csv.reader(io.StringIO(text, newline="")))
    assert found[0] == ["name", "value"]
    assert [(unguarded(name), float(value)) for name, value in found[1:]] == rows


FORMULA = re.compile(r"[=+\-@\t\r\n＝＋－＠]")  # what a spreadsheet takes for a formula, by its first character


@given(name=st.sampled_from(list("=+-@\t\r\n'＝＋－＠")).flatmap(lambda first: st.builds(first.__add__, NAMES)))
@example("=cmd|' /C calc'!A0")
@example("''=1+1")
@example("-1+cmd|' /C calc'!A0")
def test_no_text_is_a_formula(name: str) -> None:
    cell = guarded(name)
    assert unguarded(cell) == name
    assert not FORMULA.match(cell) or math.isfinite(float(cell)) or cell.strip("+-").lower() in ("inf", "nan")
    header, *rows = csv.reader(io.StringIO(csv_text([{name: name}]), newline=""))
    assert header == rows[0] == [cell] if "\r" not in name else True


def test_numbers_are_no_formulas() -> None:
    text = csv_text([{"a": -0.5, "b": np.float32(-1), "c": "-0.5", "d": "+1e-05", "e": "-inf", "f": None, "g": "-x"}])
    assert text.splitlines()[1] == "-0.5,-1.0,-0.5,+1e-05,-inf,,'-x"


def test_quotes_commas_and_line_breaks_are_quoted() -> None:
    text = csv_text([{"layer": 'a "b", c\nd', "mse": np.float32(0.1), "n": torch.tensor(3), "none": None}])
    assert text == 'layer,mse,n,none\n"a ""b"", c\nd",0.10000000149011612,3,\n'


def test_columns_may_be_given() -> None:
    assert csv_text([{"a": 1}, {"b": 2}], ["b", "a"]) == "b,a\n,1\n2,\n"
    assert csv_text([], ["a"]) == "a\n"


def test_json_has_neither_arrays_nor_nan() -> None:
    value = {"a": np.array([1.0, math.nan]), "b": (torch.tensor([[math.inf]]), {"c": np.int64(3)}), 4: True}
    assert json.loads(json.dumps(json_ready(value), allow_nan=False)) == {
        "a": [1, None],
        "b": [[[None]], {"c": 3}],
        "4": True,
    }


def test_a_table_of_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=made.append))
    dataframe({"a": i} for i in range(2))
    assert made == [[{"a": 0}, {"a": 1}]]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(
        ProbeError, match=r"needs pandas, which is not installed; install counterfactual-probe\[pandas\]"
    ):
        dataframe([])
