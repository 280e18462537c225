"""The two examples on the BigGAN-deep of CIFAR-10, with a few painted pictures in place of the photographs."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import counterfactual_probe as cp
from support.figures import SavedFigures, row_names
from support.paths import ROOT

pytestmark = [pytest.mark.examples, pytest.mark.usefixtures("examples")]
TRAINED = ROOT / "unfinished" / "biggan-cifar10"
NAMES = ("automobile", "cat", "horse")


@pytest.fixture
def painted(tmp_path: Path) -> Path:
    """Photographs of three classes: noise around a colour of each."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 24), ("test", 8)):
        for number, name in enumerate(NAMES):
            folder = tmp_path / "data" / part / name
            folder.mkdir(parents=True)
            for k in range(count):
                pixels = rng.integers(0, 60, (32, 32, 3), np.uint8)
                pixels[..., number] += 180
                Image.fromarray(pixels).save(folder / f"{k}.png")
    return tmp_path / "data"


def test_hybrids_of_two_classes(tmp_path: Path, figure_of: SavedFigures) -> None:
    example = importlib.import_module("biggan_cifar10")
    few = ["--weights", str(TRAINED), "--blocks", "5", "6", "--pairs", "2", "--shown", "1"]
    written = example.main([*few, "--classes", "cat", "dog", "--out", str(tmp_path)])
    assert [path.name for path in written] == [
        f"genblock-{block}{what}.png" for block in (5, 6) for what in ("", "-templates")
    ]
    (axes,) = figure_of(written[0]).axes
    assert axes.get_title() == "cat and dog, GenBlock 5 (conv_2 and conv_3): biggan-cifar10"
    assert row_names(axes)[:3] == ["base", "source", "module 1"]
    with pytest.raises(SystemExit, match="is none of the 10 classes of biggan-cifar10"):
        example.main([*few, "--classes", "koala", "dog", "--out", str(tmp_path)])


def test_what_classifiers_of_photographs_see(
    painted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    example = importlib.import_module("biggan_cifar10_robustness")
    kind = importlib.import_module("classifier_training").Kind
    small = {
        "resnet": kind("test_resnet", 6, 3e-3, 32, shift=2, batch=8),
        "vit": kind("test_vit", 1, 1e-3, 32, {"img_size": 32}, batch=8),
    }
    monkeypatch.setattr(example, "KINDS", small)
    few = ["--data", str(painted), "--weights", str(TRAINED), "--blocks", "6", "--pairs", "4", "--map-pairs", "2"]
    out = ["--networks", str(tmp_path / "networks"), "--out", str(tmp_path / "out")]
    page = example.main([*few, *out])
    told = capsys.readouterr()
    assert float(re.findall(r"resnet: accuracy (\S+) on 24 other images", told.out)[0]) > 0.9, "colours are learnt"
    assert "vit: epoch 1 of 1" in told.err
    result = cp.Robustness.load(tmp_path / "out" / "robustness.safetensors")
    assert result.classifiers == ("resnet", "vit")
    assert result.classes == ("horse", "automobile")
    assert result.layers == ("GenBlock 6",)
    assert page == tmp_path / "out" / "robustness.html"
    example.main([*few, *out])
    assert "epoch" not in capsys.readouterr().err, "networks are taken from their folders"


def test_photographs_without_classes(painted: Path, tmp_path: Path) -> None:
    example = importlib.import_module("biggan_cifar10_robustness")
    flat = painted / "train" / "cat"
    with pytest.raises(cp.ProbeError, match="has no folders named after classes"):
        example.photographs(flat)


def test_a_network_begins_with_known_weights_but_for_its_last_layer() -> None:
    training = importlib.import_module("classifier_training")
    from counterfactual_probe.classifiers.timm_models import timm_classifier

    known = timm_classifier("test_resnet", pretrained=False, class_names=[str(k) for k in range(7)]).module
    module = timm_classifier("test_resnet", pretrained=False, class_names=list(NAMES)).module
    last = module.get_classifier()
    before = last.weight.clone()
    training._begin_with(module, known)
    assert (last.weight == before).all()
    taken = [key for key, value in known.state_dict().items() if (module.state_dict()[key].shape == value.shape)]
    assert len(taken) == len(known.state_dict()) - 2, "all but the weight and bias of the last layer"
    assert all((module.state_dict()[key] == known.state_dict()[key]).all() for key in taken)
