"""BigGAN-deep from folders and by name: published files, files that do not fit, weights that are not there."""

from __future__ import annotations

import json
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from counterfactual_probe.adapters.biggan_deep import CONFIGS, BigGANDeep, biggan_deep, random_biggan_deep
from counterfactual_probe.adapters.biggan_deep.module import require_consistent
from counterfactual_probe.adapters.cards import biggan_deep as cards
from counterfactual_probe.adapters.cards.biggan_deep import FOLDERS
from counterfactual_probe.adapters.dcgan import DCGANGenerator
from torch import Tensor

import counterfactual_probe as cp
from counterfactual_probe.registry import hub
from support.adapters.biggans import SMALL, images, package_model, publish


@pytest.fixture(scope="module")
def model() -> Any:
    return package_model().float()


# --- folders --------------------------------------------------------------------------------------


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
def test_a_published_folder(name: str, legacy: bool, model: Any, tmp_path: Path) -> None:
    gen = cp.load(publish(tmp_path / "mine", model, name=name, legacy=legacy))
    assert isinstance(gen, BigGANDeep)
    assert gen.name == "biggan-deep-16"
    truncation = [0.4, 0.5, 0.77]
    latents: Any = gen.sample(3, classes="koala", truncation=truncation)
    expected = images(package_model(), latents | {"truncation": truncation})
    assert torch.allclose(gen(latents).double(), expected, atol=1e-5)
    assert not torch.allclose(gen(latents).flip(0).double(), expected, atol=1e-2)


def test_a_folder_that_says_more(model: Any, tmp_path: Path) -> None:
    folder = publish(tmp_path, model)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architecture": "biggan-deep", "name": "mine"}))
    assert cp.load(folder).name == "mine"


class Hostile:
    """Writes a file when unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return (os.system, (f"echo harm > {self.target}",))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("plain", [True, False])
def test_a_pickle_that_would_run_code(plain: bool, model: Any, tmp_path: Path) -> None:
    folder, harm = publish(tmp_path / "mine", model), tmp_path / "harm"
    if plain:
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Hostile(harm)))
    else:
        torch.save(model.state_dict() | {"x": Hostile(harm)}, folder / "pytorch_model.bin")
    with pytest.raises(cp.ProbeError, match=r"pytorch_model\.bin holds no readable weights"):
        cp.load(folder)
    assert not harm.exists()


# --- tensors that do not fit ----------------------------------------------------------------------


def without(key: str) -> Callable[[dict[str, Tensor]], Any]:
    return lambda state: {name: value for name, value in state.items() if name != key}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            without("generator.bn.running_means"),
            r"not that of biggan-deep-16 .* \(missing: generator\.bn\.running_means\)",
        ),
        (without("generator.layers.0.conv_0.weight_v"), r"\(missing: generator\.layers\.0\.conv_0\.weight_v\)"),
        (lambda state: state | {"generator.extra": torch.zeros(1)}, r"\(unexpected: generator\.extra\)"),
        (
            lambda state: state | {"embeddings.weight": torch.zeros(6, 10)},
            r"\(of another shape: embeddings\.weight \(6, 10\) for \(6, 1000\)\)",
        ),
        (
            lambda _: DCGANGenerator(6, [4], 3).state_dict(),
            r"\(missing: embeddings\.weight, generator\.bn\.bias, generator\.bn\.running_means; unexpected: main\.0",
        ),
        (lambda _: {}, r"\(missing: embeddings\.weight"),
    ],
)
def test_tensors_that_do_not_fit(change: Callable[[dict[str, Tensor]], Any], message: str, model: Any) -> None:
    with pytest.raises(cp.ProbeError, match=message):
        biggan_deep(SMALL, change(dict(model.state_dict())))


def test_weights_of_another_size(model: Any, tmp_path: Path) -> None:
    folder = publish(tmp_path, model)
    wider = SMALL | {"channel_width": 8}
    (folder / "config.json").write_text(json.dumps(wider))
    with pytest.raises(cp.ProbeError, match=r"of another shape: generator\.bn\.bias \(4,\) for \(8,\)"):
        cp.load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channel_width": 0}, r"channel_width of the configuration is 0; give an integer of at least 1"),
        ({"n_stats": "51"}, r"n_stats of the configuration is '51'"),
        ({"n_stats": 1}, r"n_stats is 1; give at least 2"),
        ({"layers": 3}, r"layers of the configuration are 3; give a list of \[doubles, in, out\]"),
        ({"layers": []}, r"layers of the configuration are \[\]"),
        (
            {"layers": [[True, 16, 8], [True, 16, 8]]},
            r"GenBlock 2 has 16 inputs and 8 outputs, .* it must have 8 inputs",
        ),
        ({"layers": [[True, 16, 2]]}, r"GenBlock 1 has 16 inputs and 2 outputs, in units of channel_width"),
        ({"layers": [[True, 16, 8]]}, r"the last GenBlock has 8 times channel_width outputs; it must have 1 times"),
        ({"attention_layer_position": 5}, r"attention_layer_position is 5 with 5 blocks"),
        ({"class_embed_dim": 7}, r"z_dim is 6 and class_embed_dim 7"),
        ({"output_dim": 128}, r"output_dim is 128 and the layers give 16 pixels; make them agree"),
    ],
)
def test_configurations_that_make_no_generator(change: dict[str, Any], message: str) -> None:
    require_consistent(SMALL)
    with pytest.raises(cp.ProbeError, match=message):
        require_consistent(SMALL | change)


def test_a_configuration_that_lacks_something() -> None:
    with pytest.raises(
        cp.ProbeError, match=r"the configuration of BigGAN-deep lacks num_classes, eps; give a complete"
    ):
        require_consistent({name: value for name, value in SMALL.items() if name not in ("eps", "num_classes")})


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_pretrained_biggan", None)
    with pytest.raises(cp.ProbeError, match=r'for its architecture; run: pip install "counterfactual-probe\[biggan\]"'):
        random_biggan_deep(SMALL)


# --- names ----------------------------------------------------------------------------------------


@pytest.fixture
def small_128(monkeypatch: pytest.MonkeyPatch) -> None:
    """biggan-deep-128 has the size of the test's generator, so that 50 million weights are not needed."""
    monkeypatch.setitem(CONFIGS["biggan-deep-128"], "output_dim", 16)
    load = cards._load_named
    monkeypatch.setattr(cards, "_load_named", lambda name, size, device: load(name, {128: 16}.get(size, size), device))


@pytest.mark.parametrize("size", [128, 256, 512])
def test_the_card(size: int) -> None:
    card = cp.pretrained(f"biggan-deep-{size}").card()
    for said in (f"{size}×{size}", "ImageNet (ILSVRC 2012)", "Apache", FOLDERS, "counterfactual-probe[biggan]"):
        assert said in card


@pytest.mark.usefixtures("small_128")
def test_a_name_in_the_folder_of_the_environment(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(tmp_path / "biggan-deep-128", model)
    monkeypatch.setenv(FOLDERS, str(tmp_path))
    assert cp.load("biggan-deep-128").image_size == (3, 16, 16)
    with pytest.raises(
        cp.ProbeError, match=r"PROBE_BIGGAN is '.*', which holds no folder biggan-deep-256; put the conf"
    ):
        cp.load("biggan-deep-256")
    (tmp_path / "biggan-deep-128").rename(tmp_path / "biggan-deep-512")
    with pytest.raises(
        cp.ProbeError, match=r"biggan-deep-512 holds a generator of 16 pixels and biggan-deep-512 has 512"
    ):
        cp.load("biggan-deep-512")


@pytest.mark.usefixtures("small_128")
def test_a_name_in_the_cache_of_the_hub(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def snapshot(repository: str, *_: Any) -> Path:
        asked.append(repository)
        return publish(tmp_path, model)

    monkeypatch.delenv(FOLDERS, raising=False)
    monkeypatch.setattr(hub, "fetched", snapshot)
    assert cp.load("biggan-deep-128").name == "biggan-deep-16"
    assert asked == ["osanseviero/BigGAN-deep-128"]


@pytest.mark.parametrize("name", ["biggan-deep-128", "biggan-deep-256", "biggan-deep-512"])
def test_offline_without_weights(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence says what to put where; nothing random stands in."""

    def offline(*_: Any, **__: Any) -> str:
        raise ConnectionError("no route to the hub")

    monkeypatch.delenv(FOLDERS, raising=False)
    monkeypatch.setattr(hub, "fetched", offline)
    files = r"put the config\.json and pytorch_model\.bin \(or model\.safetensors\)"
    place = f"into a folder of that name and set {FOLDERS} to the folder around it, or load the folder itself with"
    message = f"the weights of {name} were not found; {files} of {name} {place}"
    with pytest.raises(cp.ProbeError, match=message) as raised:
        cp.load(name)
    assert ("no route to the hub" in str(raised.value)) == (name == "biggan-deep-128")


# --- random weights, by that name alone -----------------------------------------------------------


def test_random_weights_say_so() -> None:
    assert random_biggan_deep("small").name == "biggan-deep small, random weights"
    assert random_biggan_deep(SMALL).name == "biggan-deep, random weights"
    assert not [name for name in cp.available() if "random" in name]
    with pytest.raises(
        cp.ProbeError, match=r"no configuration is named 'biggan-deep-64'; give one of 'biggan-deep-128'"
    ):
        random_biggan_deep("biggan-deep-64")


def test_random_weights_have_the_scale_of_trained_ones() -> None:
    gen = random_biggan_deep("small")
    latents: Any = gen.sample(16)
    made = gen(latents)
    assert 0.05 < made.std() < 0.8
    assert (made.abs() > 0.99).float().mean() < 0.2
    same = gen(latents | {"label": torch.full((16,), 3)})
    assert (same - made).abs().mean() > 0.01  # the class matters
    assert torch.equal(gen(latents), random_biggan_deep("small")(latents))
    assert not torch.equal(gen(latents), random_biggan_deep("small", seed=1)(latents))
