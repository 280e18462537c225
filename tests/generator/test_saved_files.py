"""Files of an earlier version: they load, hold what was put in, and are written the same today."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import counterfactual_probe as cp
from support import saved_results
from support.files.mutations import put_together, taken_apart

SAVED = Path(__file__).parent / "saved"
RESULTS = saved_results.results()


def same(one: Any, two: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == two.dtype and torch.equal(torch.nan_to_num(one), torch.nan_to_num(two))
    if isinstance(one, np.ndarray):
        return one.dtype == two.dtype and np.array_equal(one, two, equal_nan=one.dtype.kind == "f")
    if isinstance(one, dict) and one and isinstance(next(iter(one.values())), torch.Tensor):
        return list(one) == list(two) and all(same(one[name], two[name]) for name in one)
    return type(one) is type(two) and bool(one == two)


def test_every_class_that_saves_has_a_file() -> None:
    assert {path.name for path in SAVED.iterdir()} == set(RESULTS)
    kinds = {type(result) for result in RESULTS.values()}
    public = [getattr(place, name) for place in (cp, cp.metrics) for name in place.__all__]
    saving = {kind for kind in public if isinstance(kind, type) and hasattr(kind, "save")}
    # Score is the base of the metrics' results; the others could not be saved then.
    assert saving - {cp.metrics.Score, cp.Ranking, cp.Evidence, cp.Exchanged} == kinds


@pytest.mark.parametrize("name", [name for name in RESULTS if name != "ModuleFinder.safetensors"])
def test_a_file_of_an_earlier_version_loads_and_is_written_the_same(name: str, tmp_path: Path) -> None:
    expected = RESULTS[name]
    loaded = type(expected).load(SAVED / name)
    for field in dataclasses.fields(expected):
        assert same(getattr(loaded, field.name), getattr(expected, field.name)), field.name
    assert loaded.save(tmp_path / name).read_bytes() == (SAVED / name).read_bytes()


def test_a_finder_of_an_earlier_version_loads(tmp_path: Path) -> None:
    name, expected = "ModuleFinder.safetensors", RESULTS["ModuleFinder.safetensors"]
    loaded = cp.ModuleFinder.load(SAVED / name)
    assert loaded.labels_.tolist() == expected.labels_.tolist()
    assert sorted(loaded.modules_, key=lambda units: units.size) == [
        cp.UnitSet({"main.2": (1, 3)}),
        cp.UnitSet({"main.2": (0, 2, 4)}),
    ]
    np.testing.assert_allclose(loaded.templates_, expected.templates_, atol=1e-6)
    np.testing.assert_allclose(loaded.weights_, expected.weights_, atol=1e-6)
    np.testing.assert_array_equal(loaded.confidence_, expected.confidence_)
    assert (loaded.expected_ari_, loaded.variance_explained_, loaded.percentile) == (1.0, 1.0, 40.0)
    assert loaded.provenance_ == expected.provenance_
    assert loaded.save(tmp_path / name).read_bytes() == (SAVED / name).read_bytes()


@pytest.mark.parametrize("field", ["layers", "generator"])
def test_a_file_that_names_no_layers_or_generator_is_shown(field: str, tmp_path: Path) -> None:
    hybrids: Any = RESULTS["Hybrids.safetensors"]
    hybrids = dataclasses.replace(hybrids, provenance=hybrids.provenance | {field: None})
    assert "Hybrids(" in repr(cp.Hybrids.load(hybrids.save(tmp_path / "hybrids.safetensors")))


@pytest.mark.parametrize("given", [[1, 1], [1, -1], [0.0, -0.0]], ids=str)
@pytest.mark.parametrize("name", ["Hybrids.safetensors", "Invariance.safetensors", "Fidelity.safetensors"])
def test_a_range_of_pixels_that_is_none_is_refused(name: str, given: list[float], tmp_path: Path) -> None:
    """Pictures are drawn as shares of it."""
    result = saved_results.results()[name]
    path = result.save(tmp_path / name)
    header, data = taken_apart(path.read_bytes())
    description = json.loads(header["__metadata__"]["counterfactual-probe"])
    type(result).load(path)  # the control
    description["fields"]["provenance"]["image_range"] = given
    header["__metadata__"]["counterfactual-probe"] = json.dumps(description)
    path.write_bytes(put_together(json.dumps(header).encode(), data))
    with pytest.raises(
        cp.ProbeError, match=r"provenance\.image_range is \[.*\] and must name the smaller number first"
    ):
        type(result).load(path)
