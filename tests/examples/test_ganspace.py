"""The example on GANSpace's components: its measures on directions that are known, and its files, at toy size."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import counterfactual_probe as cp
from support.figures import SavedFigures, row_names
from support.toys import PLAIN

pytestmark = [pytest.mark.examples, pytest.mark.usefixtures("examples")]


@pytest.fixture
def ganspace(examples: Path) -> Any:
    return importlib.import_module("ganspace_components")


def test_the_overlap_is_the_share_inside_a_modules_quarter(ganspace: Any) -> None:
    templates = np.zeros((2, 4, 4))
    templates[0, 0], templates[1, 3] = 1 + np.arange(4), 1  # a row each
    inside, elsewhere, even = torch.zeros(4, 4), torch.zeros(4, 4), torch.ones(4, 4)
    inside[0], elsewhere[1] = 1, 1
    shares = ganspace.overlap(torch.stack([inside, elsewhere, even]), templates)
    torch.testing.assert_close(shares, torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.25, 0.25]]))


def test_directions_come_back_whatever_their_order_length_and_sign(ganspace: Any) -> None:
    directions = torch.linalg.qr(torch.randn(6, 6))[0].view(6, 2, 3)
    same = ganspace.returning(directions, -3 * directions.flip(0))
    torch.testing.assert_close(same, torch.ones(6))
    assert float(ganspace.returning(directions[:3], directions[3:]).max()) < 1e-5  # orthogonal ones do not
    between = (directions[0] + directions[1]) / 2**0.5
    torch.testing.assert_close(ganspace.returning(between[None], directions[:2]), torch.tensor([0.5**0.5]))


def test_templates_are_matched_one_to_one(ganspace: Any) -> None:
    templates = np.eye(3).reshape(3, 1, 3)
    assert ganspace.matched(templates, 2 * templates[[2, 0, 1]]) == pytest.approx([1, 1, 1])
    both_like_the_first = np.array([[1.0, 0.1, 0], [1, 0, 0], [0, 0, 1]]).reshape(3, 1, 3)
    assert ganspace.matched(templates, both_like_the_first)[:2] == pytest.approx([1, 0.1 / 1.01**0.5])


def test_the_example_writes_its_figures_and_findings(
    ganspace: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cp, "load", lambda name: PLAIN.generator())
    monkeypatch.setattr(ganspace, "LAYER", "main.2")
    figures = SavedFigures(monkeypatch)
    ganspace.main(["--pairs", "8", "--samples", "40", "--components", "5", "--out", str(tmp_path)])
    assert row_names(figures(tmp_path / "hybrids.png").axes[0])[:2] == ["base", "source"]
    assert len(row_names(figures(tmp_path / "hybrids.png").axes[0])) == 6  # three components, and all of them
    figures(tmp_path / "components.png")
    groups = [label.get_text() for label in figures(tmp_path / "groups.png").axes[0].get_xticklabels()]
    assert sum(int(re.findall(r"\n(\d+) features?$", name)[0]) for name in groups) == 5
    findings = (tmp_path / "findings.md").read_text()
    basis = cp.bases.PCA(5, over="layer").fit(PLAIN.generator(), "main.2", n_samples=40)
    assert f"5 components of main.2, fitted on 40 latents, explain {basis.provenance['explained']:.0%}" in findings
    assert len(findings.splitlines()) == 5
    assert "both of 8 pairs" in capsys.readouterr().out
