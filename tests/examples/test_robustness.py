"""The two examples on robustness: networks of eye colours, and koalas that are teddies, at toy size."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import counterfactual_probe as cp
from support.adapters.wheels import needs_wheels

pytestmark = [pytest.mark.examples, pytest.mark.usefixtures("examples")]


def test_eye_colours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    eyes = importlib.import_module("eye_colour_robustness")
    kind = importlib.import_module("classifier_training").Kind
    small = {"resnet": kind("test_resnet", 1, 1e-3, 64), "vit": kind("test_vit", 1, 1e-3, 64, {"img_size": 64})}
    monkeypatch.setattr(eyes, "KINDS", small)
    few = ["--layers", "main.15", "--images", "64", "--hybrids", "128", "--pairs", "4", "--out", str(tmp_path)]
    eyes.main(few)
    first = capsys.readouterr()
    assert "resnet: epoch 1 of 1" in first.err
    assert re.search(r"vit: accuracy 0\.\d+ on 64 other images \(amber 0\.\d+ blue", first.out)
    result = cp.Robustness.load(tmp_path / "robustness.safetensors")
    assert result.classifiers == ("resnet", "vit")
    assert result.classes == ("brown", "blue")
    page = (tmp_path / "robustness.html").read_text()
    assert all(f">{name}<" in page for name in ("resnet", "vit", "main.15"))
    assert page.count("data:image/") == 4  # recognition with distance, two entropies, what is not agreed on
    eyes.main(few)
    second = capsys.readouterr()
    assert "epoch" not in second.err, "networks are taken from their folders"
    assert second.out == first.out
    np.testing.assert_array_equal(cp.Robustness.load(tmp_path / "robustness.safetensors").entropies, result.entropies)


@needs_wheels
def test_koalas_and_teddies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    koalas = importlib.import_module("biggan_koala_teddy_robustness")
    assert koalas.PAPER == ("resnetv2_50", "inception_v3", "nasnetalarge", "inception_resnet_v2")
    few = ["--random-weights", "--classifiers", "efficientnet-lite0", "efficientnet-lite1", "--blocks", "4", "6"]
    page = koalas.main([*few, "--pairs", "3", "--map-pairs", "2", "--out", str(tmp_path)])
    result = cp.Robustness.load(tmp_path / "robustness.safetensors")
    assert result.layers == ("GenBlock 4", "GenBlock 6")
    assert result.present.all()
    assert len(result.units[0]) == 2, "two convolutions at once"
    assert [about["pooled"].keys().__len__() for about in result.provenance["classifiers"]] == [10, 10]
    assert result.provenance["classifiers"][1]["counts_as"] == {"koala": {"105": "koala"}, "teddy": {"850": "teddy"}}
    assert "random weights" in page.read_text()
    assert np.isfinite(result.entropies).all()
    assert capsys.readouterr().out.splitlines()[-1] == str(page)
    with pytest.raises(SystemExit, match="has GenBlocks 1 to 8, not 9"):
        koalas.main(
            ["--random-weights", "--classifiers", "efficientnet-lite0", "--blocks", "9", "--out", str(tmp_path)]
        )


def test_the_papers_classifiers_exist() -> None:
    import timm

    for name in ("resnetv2_50", "inception_v3", "nasnetalarge", "inception_resnet_v2"):
        config: Any = timm.get_pretrained_cfg(name)
        assert config.num_classes == 1000
        assert config.hf_hub_id
