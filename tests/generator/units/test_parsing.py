"""Unit sets: every accepted form, and every refusal in its words."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import counterfactual_probe as cp
from counterfactual_probe.generator.units import parse_units

A, B = cp.LayerInfo("a", 6, (4, 4)), cp.LayerInfo("b", 3, (8, 8))


@pytest.mark.parametrize(
    ("units", "expected"),
    [
        ([3, 1], [{"a": (3, 1)}]),
        (range(2), [{"a": (0, 1)}]),
        ((5,), [{"a": (5,)}]),
        ({2}, [{"a": (2,)}]),
        (np.array([1, 4]), [{"a": (1, 4)}]),
        (torch.tensor([1, 4]), [{"a": (1, 4)}]),
        ([np.int64(1), torch.tensor(4)], [{"a": (1, 4)}]),
        (torch.tensor([[1, 4], [2, 0]]), [{"a": (1, 4)}, {"a": (2, 0)}]),
        ((i for i in (1, 2)), [{"a": (1, 2)}]),
        ([[1], [2, 3]], [{"a": (1,)}, {"a": (2, 3)}]),
        ([(1,), np.array([2])], [{"a": (1,)}, {"a": (2,)}]),
        ({"a": [1]}, [{"a": (1,)}]),
        ({"a": []}, [{"a": ()}]),
        ([{"a": [1]}, [2], {"a": []}], [{"a": (1,)}, {"a": (2,)}, {"a": ()}]),
        (cp.UnitSet({"a": (1, 2)}), [{"a": (1, 2)}]),
        ([cp.UnitSet({"a": (1, 2)})], [{"a": (1, 2)}]),
        (None, [{"a": (c,)} for c in range(6)]),
    ],
)
def test_forms(units: Any, expected: list[dict[str, tuple[int, ...]]]) -> None:
    assert [dict(found) for found in parse_units(units, [A])] == expected


def test_several_layers() -> None:
    assert [dict(found) for found in parse_units({"b": [2], "a": [0, 5]}, [A, B])] == [{"b": (2,), "a": (0, 5)}]
    assert len(parse_units(None, [A, B])) == 9
    assert dict(parse_units(None, [A, B])[6]) == {"b": (0,)}


@pytest.mark.parametrize(
    ("units", "message"),
    [
        ([6], "channel 6 asked of layer 'a', which has 6; give 0 to 5"),
        ([-1], "channel -1 asked of layer 'a', which has 6"),
        ([[0], [1, 130]], "channel 130 asked of layer 'a', which has 6"),
        ([3, 1, 3], "channel 3 of layer 'a' is given twice in one unit set; give it once"),
        ({"a": [2, 2]}, "channel 2 of layer 'a' is given twice"),
        ([], "units hold no channel; give at least one channel number, or None for each channel alone"),
        (
            [[]],
            r"a unit set holds no channel; give at least one channel number, or \{'a': \[\]\} to run the base",
        ),
        ([[1], []], "a unit set holds no channel"),
        ({}, "units are an empty mapping; name a layer and its channels"),
        ({"c": [1]}, r"units name layer 'c', which is not among the layers given \(a\); nearest: 'a'"),
        ({3: [1]}, "units name layer 3, which is not among"),
        (3, r"units are the number 3; give a list, such as \[3\]"),
        ({"a": 3}, r"units are the number 3; give a list, such as \[3\]"),
        ("a", r"units are the string 'a'; give channel numbers, or \{layer: channels\}"),
        (
            [1, [2]],
            r"units mix channel numbers and sets of channels; give either one flat list, such as \[3, 17\]",
        ),
        ([1.0], "units hold a float"),
        ([[1.0]], r"1\.0 is given as a channel of layer 'a'; channels are integers, 0 to 5"),
        ([[True, False]], r"True is given as a channel .*for a boolean mask, give mask\.nonzero\(\)\[:, 0\]"),
        (torch.ones(6, dtype=torch.bool), "units hold a bool"),
        ([["1"]], "'1' is given as a channel"),
        (object(), "units hold a object"),
        ({"a": None}, "units hold a NoneType"),
    ],
)
def test_refusals(units: Any, message: str) -> None:
    with pytest.raises(cp.ProbeError, match=message):
        parse_units(units, [A])


def test_a_flat_boolean_mask_is_told_its_cure() -> None:
    with pytest.raises(cp.ProbeError, match=r"mask\.nonzero\(\)"):
        parse_units(torch.ones(6, dtype=torch.bool), [A])


def test_a_flat_list_over_several_layers_is_ambiguous() -> None:
    with pytest.raises(cp.ProbeError, match=r"ambiguous over 2 layers; name them, such as \{'a': \[0, 1\]\}"):
        parse_units([0, 1], [A, B])
    with pytest.raises(cp.ProbeError, match="channel 3 asked of layer 'b', which has 3"):
        parse_units({"a": [3], "b": [3]}, [A, B])


@pytest.mark.parametrize("analysis", ["influence", "hybridize", "intervene"])
def test_units_may_name_only_the_layers_given(plain: cp.GeneratorAdapter, analysis: str) -> None:
    z = plain.sample(1)
    run: Any = {
        "influence": partial(cp.InfluenceMap(plain, "main.2").attribute, z, z),
        "hybridize": partial(cp.Hybridizer(plain, "main.2").hybridize, z, z),
        "intervene": partial(cp.Hybridizer(plain, "main.2").intervene, z),
    }[analysis]
    with pytest.raises(cp.ProbeError, match=r"units name layer 'main\.6', which is not among .* \(main\.2\)"):
        run(units={"main.6": [0]})


def test_units_may_use_any_name_of_a_layer(plain: cp.GeneratorAdapter) -> None:
    z = plain.sample(1)
    for name in ("main.2", "main.2#1"):
        for units in ({"main.2#1": [0]}, [{"main.2": [0]}]):
            assert cp.Hybridizer(plain, name).hybridize(z, z, units=units).units == (cp.UnitSet({"main.2": (0,)}),)
    with pytest.raises(cp.ProbeError, match=r"units name layer 'main\.2' twice, in \['main\.2', 'main\.2#1'\]"):
        cp.Hybridizer(plain, "main.2").hybridize(z, z, units={"main.2": [0], "main.2#1": [1]})


@pytest.mark.parametrize("analysis", [cp.Hybridizer, cp.InfluenceMap])
def test_a_layer_that_is_no_name(plain: cp.GeneratorAdapter, analysis: Any) -> None:
    with pytest.raises(cp.ProbeError, match="layers are a int; give a layer's name, or a list of names"):
        analysis(plain, 2)
    with pytest.raises(cp.ProbeError, match=r"the generator is a Deconv; make it one with cp\.wrap"):
        analysis(plain.module, "main.2")


@given(st.lists(st.integers(0, 5), unique=True, min_size=1), st.lists(st.integers(0, 2), unique=True))
def test_a_unit_set_is_an_immutable_mapping(one: list[int], two: list[int]) -> None:
    (found,) = parse_units({"a": one, "b": two}, [A, B])
    assert dict(found) == {"a": tuple(one), "b": tuple(two)}
    assert found.size == len(one) + len(two)
    assert found == parse_units({"b": two, "a": one}, [A, B])[0]
    assert hash(found) == hash(parse_units({"b": two, "a": one}, [A, B])[0])
    assert parse_units([found], [A, B]) == [found]
    with pytest.raises(AttributeError):
        found.channels = {}


def test_labels() -> None:
    assert repr(cp.UnitSet({"a": (3, 17)})) == "UnitSet(a: 3, 17)"
    assert cp.UnitSet({"a": (), "b": (1,)}).label() == "a: no channel; b: 1"
    assert cp.UnitSet({"a": tuple(range(9))}).label(2) == "a: 0, 1, … (9 channels)"
