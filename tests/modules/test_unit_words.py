"""Whatever says how many units there are, or asks for others, calls them what they are."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import counterfactual_probe as cp
from counterfactual_probe.cli.entry import main
from support.unit_models import VIT

LAYER = "blocks.0"


def maps_of(axis: str, seed: int = 0) -> cp.InfluenceMaps:
    generator, options = VIT.generator(), {}
    if axis == "feature":
        options = {"features": cp.bases.Linear(np.eye(8))}
    else:
        options = {"axis": axis} | ({"heads": 8} if axis == "head" else {})
    return cp.InfluenceMap(generator, LAYER, **options).attribute(n_pairs=8, seed=seed, blocks=4)


def everything_said(axis: str, tmp_path: Path) -> dict[str, str]:
    """Each result's text, table and figure, as it is and read from a file."""
    maps, other = maps_of(axis), maps_of(axis, seed=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        finder = cp.ModuleFinder(2).fit(maps)
        assert finder.expected_ari_ < 0.8
    said = {"warning": "".join(str(one.message) for one in caught if "adjusted Rand" in str(one.message))}
    stability = finder.stability(maps, n_modules=[2], repetitions=2, other=other)
    match = cp.match_modules(finder, cp.ModuleFinder(2).fit(other))
    results = {"finder": finder, "stability": stability, "match": match, "maps": maps}
    for name, result in results.items():
        read = type(result).load(result.save(tmp_path / f"{name}.safetensors"))
        for how, one in (("made", result), ("read", read)):
            axes = one.plot().axes
            labels = [axes.get_xlabel(), axes.get_ylabel(), *(text.get_text() for text in axes.get_xticklabels())]
            said[f"{name}, {how}"] = f"{one}\n{one._repr_html_()}\n{[*one.records()]}\n{labels}"
    flat = cp.InfluenceMaps.load(tmp_path / "maps.safetensors")
    flat.maps.zero_()
    for name, call in {
        "flat": lambda: cp.ModuleFinder(2).fit(flat),
        "too many": lambda: cp.ModuleFinder(99).fit(maps),
        "subsets": lambda: finder.stability(maps, n_modules=[90], repetitions=2),
        "confident": lambda: finder.assigned(1.5),
    }.items():
        with pytest.raises(cp.ProbeError) as refused:
            call()
        said[name] = str(refused.value)
    return said


@pytest.mark.parametrize("axis", ["channel", "token", "head", "feature"])
def test_modules_of_any_units_call_them_what_they_are(axis: str, tmp_path: Path) -> None:
    said = everything_said(axis, tmp_path)
    for name, text in said.items():
        assert f"{axis}s" in text or f"no {axis} has" in text, (name, text)
        assert not set(re.findall(r"\b(channels|tokens|heads)\b", text)) - {f"{axis}s"}, (name, text)


def test_modules_of_a_file_are_swapped_as_what_they_are(
    users_module: Callable[[str, str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    factory = "from support.unit_models import VIT\n\ndef decoder():\n    return VIT.generator()\n"
    folder = users_module("of_a_user", factory)
    shared = ["--no-progress", "--out", "out"]
    found = ["modules", "of_a_user:decoder", "--layer", LAYER, "--axis", "token", "--modules", "2", "--pairs", "8"]
    assert main([*found, *shared]) == 0
    said = capsys.readouterr().out
    assert " tokens" in said
    assert "channel" not in said
    file = folder / "out" / f"modules-{LAYER}.json"
    assert json.loads(file.read_text())["provenance"]["axis"] == "token"
    swap = ["hybridize", "of_a_user:decoder", "--modules-file", str(file), "-n", "2", *shared]
    assert main([*swap, "--axis", "token"]) == 0
    hybrids = cp.Hybrids.load(folder / "out" / f"hybrids-{LAYER}.safetensors")
    assert {item.kind for item in hybrids.units} == {"token"}
    capsys.readouterr()
    assert main([*swap, "--force"]) == 2  # channels of the same numbers are others
    assert "the unit set holds tokens and units are channels here; give axis='token'" in capsys.readouterr().err
