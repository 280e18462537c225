"""The examples on generators that take steps, at toy size, and how far images follow a source, by a literal twin."""

from __future__ import annotations

import csv
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pywt
import torch

import counterfactual_probe as cp
from counterfactual_probe.invariance.scales import Scales
from support.figures import SavedFigures, cells, legend_names, row_names

pytestmark = [pytest.mark.examples, pytest.mark.usefixtures("examples")]


def hybrids_of(base: Any, source: Any, images: Any) -> cp.Hybrids:
    units = tuple(cp.UnitSet({"a": (row,)}) for row in range(len(images)))
    about = {"generator": "toy", "layers": ["a"], "image_range": [-1.0, 1.0]}
    return cp.Hybrids(images, base, units, about, source)


def literal(hybrids: cp.Hybrids, row: int, scale: int) -> tuple[float, float]:
    """One scale of one hybrid, pair by pair and colour by colour, and the jackknife by leaving out one pair."""

    def part(image: Any) -> Any:
        coefficients = pywt.wavedec2(image.numpy(), "haar", level=3, mode="periodization")
        zeros = [coefficients[0] * 0, *(tuple(d * 0 for d in detail) for detail in coefficients[1:])]
        zeros[scale] = coefficients[scale]
        return pywt.waverec2(zeros, "haar", mode="periodization")

    assert hybrids.source is not None
    products, squares = [], []
    for pair in range(len(hybrids.base)):
        product = square = 0.0
        for colour in range(3):
            base, source, image = (x[pair, colour] for x in (hybrids.base, hybrids.source, hybrids.images[row]))
            product += float((part(image - base) * part(source - base)).sum())
            square += float((part(source - base) ** 2).sum())
        products.append(product)
        squares.append(square)
    n = len(products)
    without = [sum(products[:i] + products[i + 1 :]) / sum(squares[:i] + squares[i + 1 :]) for i in range(n)]
    error = sum((value - sum(without) / n) ** 2 for value in without) * (n - 1) / n
    return sum(products) / sum(squares), float(np.sqrt(error))


def test_how_far_images_follow_a_source() -> None:
    steps = importlib.import_module("flow_steps")
    rng = torch.Generator().manual_seed(0)
    base, source, other = (torch.randn(4, 3, 16, 16, generator=rng, dtype=torch.float64) for _ in range(3))
    scales = Scales((16, 16), 3)
    coarse = torch.from_numpy(scales.components(source - base)[0])
    hybrids = hybrids_of(base, source, torch.stack([base, source, base + coarse, base + 0.3 * (source - base) + other]))
    found = steps.following(hybrids, scales)
    np.testing.assert_allclose(found.share[0], 0, atol=1e-12)
    np.testing.assert_allclose(found.share[1], 1)
    np.testing.assert_allclose(found.error[:2], 0, atol=1e-12)
    np.testing.assert_allclose(found.share[2], [1, 0, 0, 0], atol=1e-12)
    for scale in range(4):
        share, error = literal(hybrids, 3, scale)
        np.testing.assert_allclose((found.share[3, scale], found.error[3, scale]), (share, error), rtol=1e-9)
        assert error > 0.005
    assert len(steps.names_of(scales)) == 4


def test_steps_of_a_flow(tmp_path: Path, figure_of: SavedFigures, capsys: pytest.CaptureFixture[str]) -> None:
    steps = importlib.import_module("flow_steps")
    steps.main(["--pairs", "2", "--channels", "4", "--hybrids", "2", "--out", str(tmp_path)])
    kept = cp.ModulesByCall.load(tmp_path / "modules.safetensors")
    assert kept.labels.shape == (8, 4)
    left, right = figure_of(tmp_path / "layout.png").axes
    with (tmp_path / "layout.csv").open() as file:
        rows = list(csv.DictReader(file))
    for ax, wanted in ((left, "1–8"), (right, "8")):
        coarsest = [
            float(row["share"]) for row in rows if row["scale"].startswith("16 pixels") and row["calls"] == wanted
        ]
        assert ax.containers[0].lines[0].get_ydata()[-1] == pytest.approx(coarsest[0])
    assert len(legend_names(right)) == 5
    (ax,) = figure_of(tmp_path / "hybrids.png").axes
    cells(ax, 6, 2)
    assert row_names(ax)[2] == "source's\ncalls 1–2"
    for name in ("calls", "maps", "source_call", "modules-kept", "modules-courses", "modules-templates"):
        figure_of(tmp_path / f"{name}.png")
    assert "in one module at all calls" in capsys.readouterr().out
    assert len((tmp_path / "findings.md").read_text().splitlines()) == 6


def test_words_of_a_tiny_pipeline(tmp_path: Path, figure_of: SavedFigures, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("diffusers")
    words = importlib.import_module("which_word_where")
    words.main(["--steps", "2", "--samples", "3", "--instead", "a blue cat on the moon", "--out", str(tmp_path)])
    with (tmp_path / "words.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["word"] for row in rows][:7] == ["<start>", "a", "red", "cat", "on", "the", "moon"]
    influence = [float(row["influence"]) for row in rows]
    # The text encoder reads from left to right, so that what stands before another word is the same.
    assert max(influence[:2]) < 1e-6 < min(influence[2:])
    maps = cp.InfluenceMaps.load(tmp_path / "maps.safetensors")
    np.testing.assert_allclose(influence, maps.influence)
    (ax,) = figure_of(tmp_path / "hybrids.png").axes
    cells(ax, 5, 3)
    assert "random weights" in capsys.readouterr().err
    assert "random weights" in (tmp_path / "findings.md").read_text()


def test_a_tiny_pipeline(tmp_path: Path, figure_of: SavedFigures, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("diffusers")
    probe = importlib.import_module("diffusion_pipeline")
    probe.main(["--steps", "3", "--channels", "2", "--pairs", "2", "--out", str(tmp_path)])
    with (tmp_path / "ranges.csv").open() as file:
        layers = {row["swapped"]: row["layer"] for row in csv.DictReader(file)}
    assert layers == {
        "all steps": "unet.mid_block#*", "steps 1–1": "unet.mid_block#1-1", "steps 2–3": "unet.mid_block#2-3",
        "with the prompt": "unet.mid_block@conditional#*", "without it": "unet.mid_block@unconditional#*",
    }  # fmt: skip
    (ax,) = figure_of(tmp_path / "hybrids.png").axes
    cells(ax, 7, 2)
    assert "unet.mid_block#*" in capsys.readouterr().out


def test_a_pipeline_from_a_folder(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    tiny = importlib.import_module("tiny_pipeline")
    tiny.tiny().save_pretrained(tmp_path / "pipeline")
    words = importlib.import_module("which_word_where")
    given = ["--steps", "1", "--samples", "2"]
    words.main([*given, "--pipeline", str(tmp_path / "pipeline"), "--out", str(tmp_path / "saved")])
    words.main([*given, "--out", str(tmp_path / "made")])
    one, two = (cp.InfluenceMaps.load(tmp_path / name / "maps.safetensors") for name in ("saved", "made"))
    torch.testing.assert_close(one.maps, two.maps)
    assert "random weights" not in (tmp_path / "saved" / "findings.md").read_text()
