"""Pretrained generators: names, weights that are missing or altered, and any DCGAN's state dict."""

from __future__ import annotations

import pickle
import random
import re
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from counterfactual_probe.adapters.cards import dcgan as faces_module
from counterfactual_probe.adapters.dcgan import DCGANGenerator, dcgan
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import counterfactual_probe as cp
from counterfactual_probe.adapters import wheels
from counterfactual_probe.registry import pretrained as registry
from counterfactual_probe.registry import weights
from support.adapters.states import spoiled_state
from support.processes import imported_by
from support.registry.entries import Hostile, entries, installed

# Packages that take long to import, each needed by a few functions only.
HEAVY = {"matplotlib", "sklearn", "timm", "scipy", "pywt"}
COMMAND = "pip install --no-deps --ignore-requires-python gan-face-generate==1.1.1"


# --- names ----------------------------------------------------------------------------------------


def test_available_lists_by_wildcard() -> None:
    assert "dcgan-faces" in cp.available()
    assert cp.available("*-faces") == ["began-faces", "dcgan-faces", "flow-faces", "vae-faces"]
    assert cp.available("nothing*") == []


def test_available_is_sorted_and_each_name_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found = entries(("b-cars", "p:B"), ("a-cats", "p:A"), ("b-cars", "p:B"), ("a-dogs", "p:D"))
    monkeypatch.setattr(registry, "entry_points", found)
    assert cp.available() == ["a-cats", "a-dogs", "b-cars"]
    assert cp.available("a-*") == ["a-cats", "a-dogs"]


def test_two_packages_with_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only that name cannot be used."""
    faces = ("faces", "counterfactual_probe.adapters.cards.dcgan:FACES")
    monkeypatch.setattr(registry, "entry_points", entries(("cats", "one:A"), ("cats", "two:B"), faces))
    assert cp.available() == ["cats", "faces"]
    assert cp.pretrained("faces").name == "dcgan-faces"
    with pytest.raises(cp.ProbeError, match=r"two packages register the generator 'cats' .*uninstall one of them"):
        cp.load("cats")


def test_an_unknown_name_gets_the_nearest() -> None:
    for use in (cp.load, cp.pretrained):
        with pytest.raises(cp.ProbeError, match=r"no generator named 'dcgan-face' .* nearest: 'dcgan-faces'"):
            use("dcgan-face")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("no_such_package:X", r"generator 'cats' of 'no_such_package:X' cannot be imported .*; reinstall it"),
        ("os:no_such_name", "cannot be imported"),
        ("os:path", "entry point 'os:path' is a module and not a PretrainedGenerator"),
    ],
)
def test_a_broken_entry(value: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "entry_points", entries(("cats", value)))
    with pytest.raises(cp.ProbeError, match=message):
        cp.load("cats")


def test_a_package_of_the_users_own_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    own = cp.PretrainedGenerator(
        name="own",
        summary="mine",
        trained_on="noise",
        licence="none",
        source="here",
        install="pip install own",
        load=lambda device: dcgan(DCGANGenerator(3, [4], 1).state_dict(), device=device, name="own"),
    )
    monkeypatch.setitem(sys.modules, "own_package", SimpleNamespace(OWN=own))
    monkeypatch.setattr(registry, "entry_points", entries(("own", "own_package:OWN")))
    assert cp.load("own", device="cpu").name == "own"
    assert cp.pretrained("own") is own


def test_the_card_says_what_must_be_said() -> None:
    card = cp.pretrained("dcgan-faces").card()
    for said in ("64×64 faces", "DigiFace-1M", "non-commercial", "MIT", "gan-face-generate 1.1.1", COMMAND):
        assert said in card


# --- the faces ------------------------------------------------------------------------------------


def test_faces_are_the_published_generator(faces: cp.GeneratorAdapter) -> None:
    assert faces.name == "dcgan-faces"
    assert {name: (info.channels, info.size) for name, info in faces.layers.items()} == {
        "main.2": (512, (4, 4)),
        "main.5": (256, (8, 8)),
        "main.8": (128, (16, 16)),
        "main.11": (64, (32, 32)),
    }
    assert (faces.image_size, faces.image_range, faces.dtype) == ((3, 64, 64), (-1.0, 1.0), torch.float32)
    images = faces(faces.sample(64, seed=0))
    assert float(images.abs().max()) <= 1
    # Faces, and not the noise of an untrained net: left and right halves of the mean image are alike.
    assert mirror_correlation(faces) > 0.7
    untrained = dcgan(DCGANGenerator(100, [512, 256, 128, 64], 3).state_dict())
    assert mirror_correlation(untrained) < 0.6


def mirror_correlation(generator: cp.GeneratorAdapter) -> float:
    mean = generator(generator.sample(64, seed=0)).mean((0, 1))
    return float(torch.corrcoef(torch.stack([mean.flatten(), mean.flip(1).flatten()]))[0, 1])


def test_the_package_of_the_weights_is_not_imported() -> None:
    assert "gan_face_generate" not in imported_by("import counterfactual_probe as cp; cp.load('dcgan-faces')")


def test_a_missing_package_is_told_the_one_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(wheels, "distribution", missing)
    with pytest.raises(
        cp.ProbeError, match=f"the weights of gan-face-generate are not installed; run: {re.escape(COMMAND)}$"
    ):
        cp.load("dcgan-faces")


def test_another_version_or_a_missing_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    installed(monkeypatch, tmp_path)  # the right version without its file
    with pytest.raises(cp.ProbeError, match=r"1\.1\.1 with gan_face_generate/weights\.tar is needed; run: pip install"):
        cp.load("dcgan-faces")
    (tmp_path / "gan_face_generate").mkdir()
    (tmp_path / "gan_face_generate" / "weights.tar").write_bytes(b"")
    installed(monkeypatch, tmp_path, "1.0.0")
    with pytest.raises(cp.ProbeError, match=r"gan-face-generate 1\.0\.0 is installed and 1\.1\.1 with"):
        cp.load("dcgan-faces")


@pytest.mark.parametrize("damage", ["truncated", "altered"])
def test_damaged_weights_are_refused_before_they_are_read(
    damage: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = wheels.wheel_file(faces_module.PACKAGE, faces_module.VERSION, faces_module.WEIGHTS)
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        del content[-1000:]
    else:
        content[len(content) // 2] ^= 1
    (tmp_path / "gan_face_generate").mkdir()
    (tmp_path / "gan_face_generate" / "weights.tar").write_bytes(content)
    installed(monkeypatch, tmp_path)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("read before its hash was checked"))
    with pytest.raises(cp.ProbeError, match=r"weights\.tar has SHA-256 .* is expected \(truncated or altered file\)"):
        cp.load("dcgan-faces")


# --- weights files --------------------------------------------------------------------------------


@pytest.mark.parametrize("legacy", [True, False])
def test_a_hostile_pickle_is_refused_and_not_run(legacy: bool, tmp_path: Path) -> None:
    path, harm = tmp_path / "weights.pt", tmp_path / "harm"
    torch.save({"main.0.weight": Hostile(harm)}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(cp.ProbeError, match=r"weights\.pt holds no readable weights .*; get a complete, plain file"):
        weights.load_weights(path)
    assert not harm.exists()
    torch.load(path, weights_only=False)
    assert harm.exists()  # it was hostile


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_plain_hostile_pickle(tmp_path: Path) -> None:
    (tmp_path / "weights.pt").write_bytes(pickle.dumps(Hostile(tmp_path / "harm")))
    with pytest.raises(cp.ProbeError, match="holds no readable weights"):
        weights.load_weights(tmp_path / "weights.pt")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("keep", [4, 100, 0.5, 0.99])
def test_truncated_weights(keep: float, legacy: bool, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(DCGANGenerator(3, [4], 1).state_dict(), path, _use_new_zipfile_serialization=not legacy)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep if keep > 1 else keep * len(content))])
    with pytest.raises(cp.ProbeError, match=r"weights\.pt holds no readable weights"):
        weights.load_weights(path)


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "weights.pt").write_bytes(b"")
    with pytest.raises(cp.ProbeError, match=r"holds no readable weights \(\w.*\)"):
        weights.load_weights(tmp_path / "weights.pt")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_damaged_bytes(tmp_path: Path) -> None:
    path, rng = tmp_path / "weights.pt", random.Random(0)
    torch.save(DCGANGenerator(2, [2], 1).state_dict(), path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    refused = 0
    for _ in range(200):
        damaged = bytearray(content)
        for _ in range(3):
            damaged[rng.randrange(900)] = rng.randrange(256)
        path.write_bytes(damaged)
        try:  # only a tensor's name may be damaged, so that it loads
            weights.load_weights(path)
        except cp.ProbeError:
            refused += 1
    assert refused > 50


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(cp.ProbeError, match="cannot be read"):
        weights.load_weights(tmp_path / "nothing.pt")


def test_weights_that_are_no_state_dict(tmp_path: Path) -> None:
    torch.save([torch.zeros(2)], tmp_path / "weights.pt")
    with pytest.raises(cp.ProbeError, match="holds a list and not a state dict; give one of tensors by name"):
        weights.load_weights(tmp_path / "weights.pt")
    torch.save({"a": torch.ones(2)}, tmp_path / "weights.pt")
    assert weights.load_weights(tmp_path / "weights.pt")["a"].tolist() == [1, 1]


# --- any DCGAN ------------------------------------------------------------------------------------


def twin(module: nn.Module, z: Tensor) -> Tensor:
    with torch.no_grad():
        return module.eval()(z)


@pytest.mark.filterwarnings(
    "ignore:the images of .* do not depend on the latents:UserWarning"
)  # all its units may be dead
@settings(max_examples=12, deadline=None)
@given(
    latent=st.integers(1, 7),
    widths=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    colours=st.sampled_from([1, 3, 4]),
    bias=st.booleans(),
    prefix=st.sampled_from(["main.", "", "net.", "module.main.", "module."]),
)
def test_everything_is_read_off_the_tensors(
    latent: int, widths: list[int], colours: int, bias: bool, prefix: str
) -> None:
    module = DCGANGenerator(latent, widths, colours, bias=bias)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d) and part.running_mean is not None:
            part.running_mean.uniform_(-1, 1)
    state = {prefix + key.removeprefix("main."): value for key, value in module.state_dict().items()}
    generator = dcgan(state)
    size = 4 * 2 ** len(widths)
    assert generator.image_size == (colours, size, size)
    assert [info.channels for info in generator.layers.values()] == widths
    assert list(generator.layers) == [f"main.{3 * i + 2}" for i in range(len(widths))]
    z = generator.sample(2)
    assert isinstance(z, Tensor)
    assert z.shape == (2, latent, 1, 1)
    assert torch.allclose(generator(z), twin(module, z), atol=1e-6)


def test_counters_of_batches_may_be_missing() -> None:
    """Old checkpoints have none, and nothing depends on them."""
    state = DCGANGenerator(3, [4, 2], 1).state_dict()
    old = {key: value for key, value in state.items() if "num_batches" not in key}
    assert len(old) == len(state) - 2
    generator = dcgan(old)
    assert torch.equal(generator(generator.sample(1)), dcgan(state)(generator.sample(1)))


def spoiled(**changes: Any) -> dict[str, Any]:
    return spoiled_state(DCGANGenerator(3, [4, 2], 1), **changes)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, r"holds no numbered 4-D kernels \(its first keys: none\); give that of a DCGAN"),
        ({"a": torch.zeros(1), "b": 3}, r"its first keys: a"),
        (spoiled(main__1__running_mean=None), r"missing: main\.1\.running_mean\)"),
        (spoiled(main__9__extra=torch.zeros(1)), r"unexpected: main\.9\.extra\)"),
        (spoiled(main__1__weight=torch.zeros(5)), r"of another shape: main\.1\.weight \(5,\) for \(4,\)\)"),
        (
            spoiled(main__3__weight=torch.zeros(5, 2, 4, 4)),
            r"the kernels have shapes \[\(3, 4, 4, 4\), \(5, 2, 4, 4\)",
        ),
        (spoiled(main__0__weight=torch.zeros(3, 4, 5, 5)), r"those of a DCGAN are \(in, out, 4, 4\)"),
        (spoiled(main__0__bias=torch.zeros(4)), r"missing: main\.3\.bias, main\.6\.bias\)"),
    ],
)
def test_wrong_tensors_are_named(state: dict[str, Any], message: str) -> None:
    with pytest.raises(cp.ProbeError, match=message):
        dcgan(state)


# --- what importing costs -------------------------------------------------------------------------


def test_importing_loads_no_heavy_package() -> None:
    assert not HEAVY & imported_by()


@pytest.mark.long
def test_the_import_check_can_fail() -> None:
    assert {"sklearn", "scipy"} <= HEAVY & imported_by("import sklearn; from counterfactual_probe import *")


def test_public_names() -> None:
    assert sorted(cp.__all__) == sorted(set(cp.__all__))
    assert all(hasattr(cp, name) for name in cp.__all__)
    assert issubclass(cp.Interrupted, cp.ProbeError)
    assert issubclass(cp.Interrupted, KeyboardInterrupt)
