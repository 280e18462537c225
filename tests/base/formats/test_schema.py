"""Strict JSON, declared schemas and shapes: the field that is wrong, its value, and what must stand there."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

import counterfactual_probe as cp
from counterfactual_probe.base.formats.arrays import require_agreement
from counterfactual_probe.base.formats.schema import Schema, conform
from counterfactual_probe.base.formats.strict import strict_json
from counterfactual_probe.base.formats.types import Channel, Name, Number, Pair, Side, Units
from counterfactual_probe.generator.results import Result
from support import saved_results
from support.files.mutations import put_together, taken_apart


class Example(Schema):
    width: Side
    units: Units | None = None
    scale: Number = 1.0
    pair: Pair[Channel] | None = None
    name: Name | None = None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"\xef\xbb\xbf{}", "begins with a byte-order mark"),
        (b'{"a": 1, "a": 2}', "names 'a' twice in one object"),
        (b'{"a": NaN}', "holds NaN, which is no number"),
        (b'{"a": -Infinity}', "holds -Infinity"),
        (b'{"a": 1e999}', "holds 1e999, which is larger"),
        (b'["a\\u0000"]', "holds a null byte"),
        (b'{"\\ud800": 1}', "half of a surrogate pair"),
        (b"[" * 65 + b"]" * 65, "nested more than 64 levels"),
        (b"[" * 10**6, "nested more than 64 levels"),
        (b"9" * 5000, "4300 digits"),
        (b"\xff", "codec can't decode"),
        (b"{} {}", "Extra data"),
    ],
)
def test_what_is_no_json_here(text: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        strict_json(text)


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text("aé\n\"'"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=3), inner, max_size=3),
    max_leaves=10,
)


@given(value=_values)
def test_all_other_json_is_read_as_by_everyone(value: Any) -> None:
    assert strict_json(json.dumps(value)) == strict_json(json.dumps(value).encode()) == value


def test_nan_is_read_where_results_may_hold_it() -> None:
    assert np.isnan(strict_json("[NaN]", nan=True)[0])


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ({}, "it lacks 'width'"),
        ({"width": 3, "depth": 4}, "it holds an unknown 'depth'"),
        ([], r"the whole is \[\] and must be an object"),
        ({"width": 0}, "width is 0 and must be an integer >= 1"),
        ({"width": 10**18}, "width is 1000000000000000000 and must be an integer <= 65536"),
        ({"width": 10**30}, "width is 1000000000000000000000000000000 and must be an integer"),
        ({"width": True}, "width is True and must be an integer"),
        ({"width": 3.0}, "width is 3.0 and must be an integer"),
        ({"width": "3"}, "width is '3' and must be an integer"),
        ({"width": [3]}, r"width is \[3\] and must be an integer"),
        ({"width": 3, "scale": float("nan")}, "scale is nan and must be a number"),
        ({"width": 3, "scale": float("inf")}, "scale is inf and must be a number"),
        ({"width": 3, "units": [{"a": [-1]}]}, r"units\[0\]\[...\]\[0\] is -1 and must be an integer >= 0"),
        ({"width": 3, "units": [{"a": 3}]}, r"units\[0\]\[...\] is 3 and must be a list"),
        ({"width": 3, "pair": [1]}, r"pair is \[1\] and must be a list of length >= 2"),
        ({"width": 3, "name": "x" * 1001}, r"name is 'x+… and must be text of length <= 1000"),
    ],
)
def test_the_first_field_that_differs_is_named(value: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        conform(value, Example)


def test_what_conforms() -> None:
    assert conform({"width": 3, "units": [{"a": [0]}], "scale": 2, "pair": [1, 2]}, Example).scale == 2


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"maps": np.zeros((2, 4))}, r"maps is float64 \(2, 4\) and must be floating-point numbers, \(sets, H, W\)"),
        ({"maps": np.zeros((2, 4, 4), int)}, r"maps is int64 \(2, 4, 4\) and must be floating-point"),
        ({"error": torch.zeros(2, 4, 5)}, "error has 5 for W and maps has 4"),
        ({"n": torch.tensor([1, -1])}, "n is torch.int64 .* and must be integers of at least 0"),
        ({"n": torch.ones(2)}, "n is torch.float32 .* and must be integers"),
        ({"units": [1]}, "units has 1 for sets and maps has 2"),
        ({"fewer": np.zeros(2)}, "fewer has 2 for sets-1 and maps has 2"),
        ({"three": np.zeros((2, 2), bool)}, "three has 2 where it must have 3"),
    ],
)
def test_arrays_that_disagree(change: dict[str, Any], sentence: str) -> None:
    arrays = {
        "maps": np.zeros((2, 4, 4)),
        "error": torch.zeros(2, 4, 4, dtype=torch.bfloat16),
        "n": torch.tensor([1, 0]),
        "units": ["a", "b"],
        "fewer": np.zeros(1),
        "three": np.zeros((7, 3), bool),
    }
    declared = {
        "maps": "float sets H W",
        "error": "float sets H W",
        "n": "count sets",
        "units": "list sets",
        "fewer": "float sets-1",
        "three": "bool _ 3",
        "not there": "int x",
    }
    assert require_agreement(arrays, declared) == {"sets": 2, "H": 4, "W": 4}
    with pytest.raises(ValueError, match=sentence):
        require_agreement({**arrays, **change}, declared)


# --- results ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in saved_results.results() if not name.startswith("ModuleFinder")])
def test_every_array_of_a_result_has_a_declared_form(name: str) -> None:
    result = saved_results.results()[name]
    arrays = {item.name for item in dataclasses.fields(result) if hasattr(getattr(result, item.name), "shape")}
    assert arrays - {"latents"} <= type(result).SHAPES.keys()  # of which a file says the form itself
    assert isinstance(result, Result)


def spoilt(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """The same file with another description; tensors stay."""
    header, data = taken_apart(path.read_bytes())
    about = json.loads(header["__metadata__"]["counterfactual-probe"])
    change(about)
    header["__metadata__"]["counterfactual-probe"] = json.dumps(about)
    path.write_bytes(put_together(json.dumps(header).encode(), data))


@pytest.mark.parametrize(
    ("kind", "change", "sentence"),
    [
        ("InfluenceMaps", lambda about: about["fields"]["units"].pop(), "units has 1 for sets and maps has 2"),
        (
            "InfluenceMaps",
            lambda about: about["fields"]["units"][0].update({"main.9": [1]}),
            "its units are of layer 'main.9' and its provenance of main.2, main.6",
        ),
        (
            "InfluenceMaps",
            lambda about: about["fields"]["units"][0].update({"main.2": [10**18]}),
            r"units.* is 1000000000000000000 and must be an integer <= 2147483647",
        ),
        (
            "InfluenceMaps",
            lambda about: about["fields"]["provenance"].update(n_pairs=-1),
            r"provenance\.n_pairs is -1 and must be an integer >= 0",
        ),
        (
            "Hybrids",
            lambda about: about["fields"]["provenance"].update(image_range="wide"),
            r"provenance\.image_range is 'wide' and must be a list",
        ),
        (
            "Robustness",
            lambda about: about["fields"]["classifiers"].append("third"),
            "answers has 2 for classifiers and classifiers has 3",
        ),
        (
            "Robustness",
            lambda about: about["fields"]["provenance"]["classifiers"].pop(),
            "its provenance has 1 classifiers and the result 2",
        ),
        ("SpectralTable", lambda about: about["fields"]["rows"][0].pop("in"), r"rows\[0\] lacks 'in'"),
        ("PartsAgreement", lambda about: about["fields"]["provenance"]["parts"].pop(), "names 2 parts and parts has 3"),
        ("Stability", lambda about: about["fields"].update(colour="red"), "it holds an unknown 'colour'"),
        ("Stability", lambda about: about["arrays"].append("colour"), "it holds no array 'colour'"),
        ("ModuleFinder", lambda about: about["parameters"].update(n_modules=7), "n_modules is 7"),
        ("ModuleFinder", lambda about: about["units"].pop(), "units has 5 for channels and labels_ has 6"),
        ("ModuleFinder", lambda about: about.update(variance_explained="all"), "variance_explained is 'all'"),
    ],
)
def test_a_result_whose_parts_disagree(kind: str, change: Any, sentence: str, tmp_path: Path) -> None:
    result = saved_results.results()[f"{kind}.safetensors"]
    path = result.save(tmp_path / "result")
    spoilt(path, lambda about: None)
    type(result).load(path)  # the control
    spoilt(path, change)
    with pytest.raises(cp.ProbeError, match=rf"result lacks a part of {kind} .*{sentence}.*make it again with \.save"):
        type(result).load(path)


def test_tensors_whose_shapes_disagree(tmp_path: Path) -> None:
    result = saved_results.results()["InfluenceMaps.safetensors"]
    path = result.save(tmp_path / "maps")
    header, _ = taken_apart(path.read_bytes())
    for name, other in (("standard_error", torch.zeros(2, 4, 5)), ("n_pairs", torch.zeros(3, dtype=torch.int64))):
        tensors = safetensors.torch.load(result.save(path).read_bytes()) | {name: other}
        path.write_bytes(safetensors.torch.save(tensors, metadata=header["__metadata__"]))
        with pytest.raises(cp.ProbeError, match=f"{name} has .+ for (size|sets) and maps has"):
            cp.InfluenceMaps.load(path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"matrix": [[1, 2], [3]]}, "matrix"),
        ({"matrix": [["1", "2"]]}, r"matrix\[0\]\[0\] is '1' and must be a number"),
        ({"matrix": {"a": 1}}, "matrix"),
        ({"gaps": [0.1]}, "gaps has 1 for factors and matrix has 2"),
        ({"score": None}, "score is None and must be a number"),
        ({"provenance": []}, "provenance"),
    ],
)
def test_a_score_whose_parts_disagree(change: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    path = saved_results.results()["MIG.json"].save(tmp_path / "score.json")
    content = json.loads(path.read_text())
    cp.metrics.MIG.load(path)
    path.write_text(json.dumps({**content, **change}))
    with pytest.raises(cp.ProbeError, match=rf"score\.json lacks a part of MIG .*{sentence}"):
        cp.metrics.MIG.load(path)
    path.write_text(json.dumps({**content, "provenance": {**content["provenance"], "codes": 9}}))
    with pytest.raises(cp.ProbeError, match="names 9 codes and 2 factors and matrix is 3×2"):
        cp.metrics.MIG.load(path)


def test_names_in_our_own_files_may_hold_any_letters() -> None:
    for text in ("a\0b", "caf\udce9"):
        written = json.dumps([text])
        assert strict_json(written, any_text=True) == [text]
        with pytest.raises(ValueError, match=r"the text .* holds"):
            strict_json(written)
