"""The example of S000 Figs 3 and 4: what is told of planted courses, and from its command line to its files."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from counterfactual_probe.adapters.vae.independent_recipe import IndependentVAERecipe

import counterfactual_probe as cp
from support.figures import SavedFigures, cells, row_names
from support.toy_training import squares

pytestmark = [pytest.mark.examples, pytest.mark.usefixtures("examples")]


def example(name: str) -> Any:
    return importlib.import_module(f"spectral_{name}")


# --- what is told -----------------------------------------------------------------------------------


def planted(step: int, scales: list[float], *, deviation: float = 0.5, reconstruction: float = 0.1) -> Any:
    """A look whose errors are these, in every one of two images."""
    errors = torch.tensor([scales, scales], dtype=torch.float64)
    pictures = torch.zeros(1, 3, 16, 16)
    stretch = cp.Invariance(
        image_mse=errors.sum(1),
        image_mse_per_scale=errors,
        image_change_per_scale=torch.ones_like(errors),
        images=pictures,
        base=pictures,
        transformed=pictures,
        provenance={"layers": ["level3"], "levels": len(scales) - 1, "wavelet": "haar", "image_range": (-1.0, 1.0)},
    )
    ratios = {"level3": np.array([1 - deviation, 1 + deviation])}
    return example("courses").Look(step, stretch, ratios, reconstruction)


def course(seed: int, errors: list[list[float]], **of_each: float) -> Any:
    looks = [planted(100 * 2**i, scales, **of_each) for i, scales in enumerate(errors)]
    return example("courses").Course(seed, looks)


def scaled(values: list[list[float]], factor: float) -> list[list[float]]:
    return [[value * factor for value in row] for row in values]


# Least at 200 steps; then 0.6 more in the three coarser scales and 0.1 in the finest.
RISING = [[1.0, 0.5, 0.5, 0.5, 0.5], [0.2, 0.2, 0.2, 0.2, 0.2], [0.4, 0.4, 0.4, 0.2, 0.3]]
# Least at 400 steps.
LATE = [[1.0, 0.5, 0.5, 0.5, 0.5], [0.2, 0.2, 0.2, 0.2, 0.2], [0.1, 0.1, 0.1, 0.1, 0.1]]
LATE_ALONE = [*LATE[:2], [0.2, 0.19, 0.2, 0.2, 0.2]]
FACTORS = [1.0, 1.1, 0.9]


def told(without: list[list[float]], trained: list[list[float]], **own: float) -> list[str]:
    found = example("courses").findings(
        {
            "without": [course(i, scaled(without, factor)) for i, factor in enumerate(FACTORS)],
            "with": [course(i, scaled(trained, factor), **own) for i, factor in enumerate(FACTORS)],
        }
    )
    assert len(found) == 8
    return list(found)


def test_a_paper_that_is_right() -> None:
    grows, coarse, delay, slower, better, relative, nearer, costs = told(RISING, LATE, deviation=0.2)
    assert (
        "progresses” holds here. Without independence the error of level3, stretched, is smallest after 200 of 400"
        in grows
    )
    assert "steps and 0.7 ± 0.17 larger at the end; relative to a layer that ignores" in grows
    assert "it goes from 0.2 to 0.34." in grows
    assert "in coarser scales” holds here. Of that growth 0.6 is in all scales but the 2 finest, and 0.1 in" in coarse
    assert "relative to their errors before, that is 100% and 25%." in coarse
    assert "starts rising” holds here" in delay
    assert "smallest after 200, 200, 200 steps without and 400, 400, 400 with it" in delay
    assert "in 3 of 6 trainings that is the last evaluation" in delay
    assert "seems slower” holds here" in slower
    assert (
        "“A better modularity” for the same number of steps holds here. After 400 the error is 1.7 without and 0.5"
        in better
    )
    assert "holds here: 0.34 without and 0.1 with it" in relative
    assert "holds here. The root mean square of ρ − 1 is 0.5 without and 0.2 with it" in nearer
    assert "is undecided here" in costs


def test_a_paper_that_is_wrong() -> None:
    grows, coarse, delay, slower, better, _, nearer, costs = told(LATE, RISING, deviation=0.7, reconstruction=0.2)
    assert (
        "progresses” does not hold here. Without independence the error is smallest at the end, after 400 steps"
        in grows
    )
    assert "cannot be tested here" in coarse
    assert "does not hold here. The error is smallest after 400, 400, 400 steps without and 200, 200, 200" in delay
    assert "does not hold here" in slower
    assert "does not hold here" in better
    assert "does not hold here" in nearer
    assert "holds here. Their squared error is 0.1 without and 0.2 with it" in costs


def test_where_no_error_rises_nothing_is_told_of_delays() -> None:
    _, _, delay, slower, *_ = told(LATE, LATE_ALONE)
    assert "is undecided here (no error rises)" in delay
    assert "in 6 of 6 trainings that is the last evaluation, so no rise is seen" in delay
    assert "is undecided here (no error rises)" in slower


def test_what_is_sure_depends_on_the_spread_over_seeds() -> None:
    difference = example("courses").Difference
    assert difference(np.array([1.0, 2.0, 3.0])).half == pytest.approx(4.302653 / 3**0.5, rel=1e-6)
    assert difference(np.array([1.0, 2.0, 3.0])).told == "is undecided here (3 seeds differ by as much)"
    assert difference(np.array([1.9, 2.0, 2.1])).told == "holds here"
    assert difference(-np.array([1.9, 2.0, 2.1])).told == "does not hold here"
    assert difference(np.array([2.0])).told == "is undecided here (one seed)"
    assert difference(np.zeros(3)).told == "is undecided here (3 seeds differ by as much)"


def test_looks_are_ever_farther_apart() -> None:
    steps = example("training").steps
    assert steps(100, 800) == [100, 141, 200, 283, 400, 566, 800]
    assert steps(100, 300) == [100, 141, 200, 283, 300]
    assert steps(100, 50) == [50]
    assert steps(1, 4) == [1, 2, 3, 4]


# --- from the command line --------------------------------------------------------------------------


def test_the_trainings(tmp_path: Path, capsys: pytest.CaptureFixture[str], figure_of: SavedFigures) -> None:
    np.save(tmp_path / "squares.npy", squares())
    out = tmp_path / "out"
    arguments = ["--data", str(tmp_path / "squares.npy"), "--size", "16", "--batch", "5", "--latent", "3"]
    arguments += ["--width", "4", "--precision", "float32", "--device", "cpu", "--shown", "2", "--latents", "3"]
    arguments += ["--first", "1", "--seeds", "2", "--independence", "0.5", "--out", str(out)]
    module = example("training")
    module.main([*arguments, "--steps", "2"])
    panels = figure_of(out / "over-training.png").axes
    assert [len(ax.lines) for ax in panels] == [5, 5, 2, 2, 2, 2]  # scales, then kinds of training
    assert all(line.get_xdata().tolist() == [1, 2] for ax in panels for line in ax.lines)
    (sheet,) = figure_of(out / "stretched.png").axes
    assert cells(sheet, 6, 2).shape[2:4] == (16, 16)
    assert [name.partition(":")[0] for name in row_names(sheet)] == ["without"] * 3 + ["with"] * 3
    findings = (out / "findings.md").read_text()
    assert findings in capsys.readouterr().out
    assert findings.count("\n- ") == 7
    table = json.loads((out / "table.json").read_text())
    assert [(row["independence"], row["seed"], row["step"]) for row in table] == [
        (name, seed, step) for name in ("without", "with") for seed in (0, 1) for step in (1, 2)
    ]
    for row in table:
        assert sum(row[f"mse_scale_{i}"] for i in range(1, 6)) == pytest.approx(row["mse"], rel=1e-9)
        assert row["layer"] == "decoder.level2"  # 8×8 maps of 16×16 images
    gen = cp.load(out / "with-1/looks/step-000002")
    stretch = cp.StretchTest(gen, "decoder.level2").measure(gen.sample(3, seed=0))
    assert table[-1]["mse"] == pytest.approx(float(stretch.mse), rel=1e-9)
    assert len({row["mse"] for row in table}) == 8

    written = {path: path.read_bytes() for path in out.rglob("looks/*/model.safetensors")}
    assert len(set(written.values())) == 8
    module.main([*arguments, "--steps", "4"])  # longer: 3 and 4 are added, the others stay
    assert {path: path.read_bytes() for path in written} == written
    assert len(list(out.rglob("looks/*/model.safetensors"))) == 16
    # A training that is looked at on its way is the same training.
    recipe = IndependentVAERecipe(batch=5, latent=3, width=4, independence=0.5)
    cp.train(recipe, squares(), out=tmp_path / "whole", steps=4, seed=1, device="cpu")
    last = out / "with-1/looks/step-000004/model.safetensors"
    assert last.read_bytes() == (tmp_path / "whole/model.safetensors").read_bytes()
