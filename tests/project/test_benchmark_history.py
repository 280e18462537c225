"""The history of the benchmarks: ratios of what was measured, kept by version, and what CI compares."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import counterfactual_probe as cp
from support.paths import BENCHMARKS, ROOT, module_of


@pytest.fixture
def history() -> ModuleType:
    return module_of(BENCHMARKS / "history.py")


def measured() -> dict[str, Any]:
    return {
        "throughput": {"layers": [{"layer": "main.2", "ratio": 1.5, "ratio_range": [1.25, 2.0]}]},
        "compare": {"rows": {"float32": {"ratios_to": {"hooks": 4.0}, "ratio_ranges_to": {"hooks": [3.0, 5.0]}}}},
        "samplers": {"rows": [{"layer": "middle#*", "ratio": 1.125, "ratio_range": [1.0, 1.25]}]},
    }


def test_ratios_have_their_ranges(history: ModuleType) -> None:
    assert history.ratios(**measured()) == {
        "hybrids for an image, main.2": [1.5, 1.25, 2.0],
        "maps as fast as hooks, four layers": [4.0, 3.0, 5.0],
        "maps as fast as hooks, middle#*": [1.125, 1.0, 1.25],
    }
    first, *_ = history.for_action(history.ratios(**measured()))
    assert first == {"name": "hybrids for an image, main.2", "unit": "ratio", "value": 1.5, "range": "1.25–2.00"}


def test_this_version_is_kept_and_drawn(history: ModuleType) -> None:
    kept = history.kept()
    assert cp.__version__ in {one["version"] for one in kept}
    for one in kept:
        assert one["machine"]["counterfactual_probe"] == one["version"]
        assert all(low <= value <= high for value, low, high in one["ratios"].values())
    names = [label.get_text() for label in history.plot(kept).axes.get_yticklabels()]
    assert set(names) == {name for one in kept for name in one["ratios"]}


def test_ci_reads_the_file_that_is_written(
    history: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, content in measured().items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    monkeypatch.setattr(sys, "argv", ["history.py", str(tmp_path)])
    history.main()
    assert capsys.readouterr().out == f"{tmp_path / 'ratios.json'}\n"
    workflow = (ROOT / ".github/workflows/ci.yml").read_text()
    assert "output-file-path: out/bench/ratios.json" in workflow
    assert "benchmarks/history.py out/bench $(ARGS)" in (ROOT / "Makefile").read_text()
