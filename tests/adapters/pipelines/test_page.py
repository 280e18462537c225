"""The page on generators that take steps: its code runs from top to bottom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from support.paths import DOCS, run_python


@pytest.mark.examples
def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from support.adapters import pipelines

    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"pipeline": pipelines.stable_diffusion()}
    names |= {"networks": torch.nn.Conv2d(3, 3, 3, padding=1)}
    names["loop"] = lambda z: names["networks"](names["networks"](z))
    assert len(run_python(DOCS / "samplers.md", names)) == 6
    assert names["maps"].by_call().shape[0] == 10
    assert (names["all_steps"].images - names["late"].images).abs().max() > 0
    words = names["words"]
    assert (len(words), words.units[0].kind) == (12, "token")
    assert words.influence[0] < 1e-6 < words.influence[3]  # "a cat" and "a dog" start alike
    assert names["along"].kept.shape == (7,)
