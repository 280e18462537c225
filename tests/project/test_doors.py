"""Every way by which a file comes into the library: none runs code that the file holds, none opens another file."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tomllib
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from counterfactual_probe.adapters.dcgan import DCGANDiscriminator, DCGANGenerator

import counterfactual_probe as cp
from counterfactual_probe.classifiers.timm_models import FIRST_SAFE, save_classifier, timm_classifier
from counterfactual_probe.cli.common import modules_of
from counterfactual_probe.data import open_images
from counterfactual_probe.registry import hub
from counterfactual_probe.registry.folders import save_folder
from counterfactual_probe.registry.weights import load_weights
from support.files.hostile import PAYLOADS, run_unguarded
from support.paths import ROOT
from support.toy_training import Toy, train
from support.toys import PLAIN

needs_timm = pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed")
needs_h5py = pytest.mark.skipif(find_spec("h5py") is None, reason="h5py is not installed")
posix = pytest.mark.skipif(sys.platform == "win32", reason="links and special files are POSIX's")


def generator_folder(place: Path) -> Path:
    folder = save_folder(place, "dcgan", DCGANGenerator(3, [4, 2], 1).state_dict())
    state = {name: value.contiguous() for name, value in DCGANDiscriminator([2, 4], 1).state_dict().items()}
    (folder / "discriminator.safetensors").write_bytes(safetensors.torch.save(state))
    return folder


def classifier_folder(place: Path) -> Path:
    return save_classifier(timm_classifier("test_resnet", pretrained=False, class_names=["a", "b"]), place)


def old_weights(folder: Path, content: bytes) -> None:
    """Pickled weights in place of safetensors."""
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(content)


# --- doors: each takes an empty folder and the hostile bytes ----------------------------------------------


def generator_weights(place: Path, content: bytes) -> None:
    folder = generator_folder(place / "g")
    (folder / "model.safetensors").write_bytes(content)
    cp.load(folder)


def old_generator_weights(place: Path, content: bytes) -> None:
    folder = generator_folder(place / "g")
    old_weights(folder, content)
    cp.load(folder)


def generator_of_the_hub(place: Path, content: bytes) -> None:
    folder = generator_folder(place / "g")
    old_weights(folder, content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hub, "fetched", lambda repository, revision, usual, wanted: folder)
        cp.load("hf:user/repo")


def generator_config(place: Path, content: bytes) -> None:
    folder = generator_folder(place / "g")
    (folder / "config.json").write_bytes(content)
    cp.load(folder)


def discriminator(place: Path, content: bytes) -> None:
    folder = generator_folder(place / "g")
    (folder / "discriminator.safetensors").write_bytes(content)
    assert cp.load(folder).partner is None


def model_card(place: Path, content: bytes) -> None:
    folder = generator_folder(place / "g")
    (folder / "README.md").write_bytes(content)
    cp.load(folder)


def classifier_weights(place: Path, content: bytes) -> None:
    folder = classifier_folder(place / "c")
    old_weights(folder, content)
    cp.load_classifier(folder)


def classifier_config(place: Path, content: bytes) -> None:
    folder = classifier_folder(place / "c")
    (folder / "config.json").write_bytes(content)
    cp.load_classifier(folder)


def classifier_checkpoint(place: Path, content: bytes) -> None:
    (place / "best.pth.tar").write_bytes(content)
    cp.load_classifier("test_resnet", checkpoint=place / "best.pth.tar", class_names=["a", "b"])


def inception(place: Path, content: bytes) -> None:
    from counterfactual_probe.fidelity.inception import Inception

    (place / "weights.pth").write_bytes(content)
    Inception(weights=place / "weights.pth")


def loading(kind: Any) -> Callable[[Path, bytes], None]:
    def door(place: Path, content: bytes) -> None:
        (place / "result").write_bytes(content)
        kind.load(place / "result")

    return door


def checkpoint(place: Path, content: bytes) -> None:
    (place / "progress").write_bytes(content)
    cp.InfluenceMap(PLAIN.generator(), "main.2").attribute(n_pairs=1, checkpoint=place / "progress")


@cache
def trained(parent: Path) -> Path:
    """The folder of a short training, one for all payloads of a test."""
    return train(Toy(), parent / "trained", steps=4).folder


def training_state(place: Path, content: bytes) -> None:
    shutil.copytree(trained(place.parent), place / "t")
    (place / "t" / "state.safetensors").write_bytes(content)
    train(Toy(), place / "t", steps=8, resume=True)


def training_losses(place: Path, content: bytes) -> None:
    shutil.copytree(trained(place.parent), place / "t")
    (place / "t" / "losses.csv").write_bytes(content)
    train(Toy(), place / "t", steps=8, resume=True)


def data(suffix: str) -> Callable[[Path, bytes], None]:
    def door(place: Path, content: bytes) -> None:
        (place / f"images{suffix}").write_bytes(content)
        open_images(place / f"images{suffix}")

    return door


def picture(place: Path, content: bytes) -> None:
    (place / "images").mkdir()
    (place / "images" / "a.png").write_bytes(content)
    open_images(place / "images")


def picture_cache(place: Path, content: bytes) -> None:
    (place / "cache").write_bytes(content)
    open_images(np.zeros((2, 3, 4, 4), np.uint8), cache=place / "cache")


def modules_file(place: Path, content: bytes) -> None:
    (place / "modules.json").write_bytes(content)
    modules_of(str(place / "modules.json"))


def modules_beside_a_generator(place: Path, content: bytes) -> None:
    folder = generator_folder(place / "g")
    (folder / "modules.json").write_bytes(content)
    gen = cp.load(folder)
    gen.edit(gen.sample(1), "module 1", source=gen.sample(1))


DOORS: dict[str, Any] = {
    "weights": generator_weights,
    "old weights": old_generator_weights,
    "hub": generator_of_the_hub,
    "config": generator_config,
    "discriminator": discriminator,
    "model card": model_card,
    "classifier's weights": pytest.param(classifier_weights, marks=needs_timm),
    "classifier's config": pytest.param(classifier_config, marks=needs_timm),
    "classifier's checkpoint": pytest.param(classifier_checkpoint, marks=needs_timm),
    "Inception": pytest.param(
        inception, marks=pytest.mark.skipif(find_spec("torch_fidelity") is None, reason="no torch-fidelity")
    ),
    "maps": loading(cp.InfluenceMaps),
    "finder": loading(cp.ModuleFinder),
    "score": loading(cp.metrics.MIG),
    "checkpoint": checkpoint,
    "training's state": training_state,
    "training's losses": training_losses,
    ".npy": data(".npy"),
    ".npz": data(".npz"),
    ".h5": pytest.param(data(".h5"), marks=needs_h5py),
    ".zip": data(".zip"),
    "picture": picture,
    "pictures' cache": picture_cache,
    "modules file": modules_file,
    "modules beside a generator": modules_beside_a_generator,
}


@pytest.mark.parametrize("payload", PAYLOADS)
def test_the_payloads_are_hostile(payload: str, tmp_path: Path) -> None:
    """The control of all below."""
    with suppress(Exception):
        run_unguarded(payload, PAYLOADS[payload](tmp_path / "harm"))
    assert (tmp_path / "harm").exists()


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS.keys())
def test_no_door_runs_what_a_file_holds(door: Callable[[Path, bytes], None], tmp_path: Path) -> None:
    for number, payload in enumerate(PAYLOADS.values()):
        place = tmp_path / str(number)
        place.mkdir()
        with suppress(cp.ProbeError):
            door(place, payload(tmp_path / "harm"))
        assert not (tmp_path / "harm").exists()


# --- names, paths and callables in configurations ---------------------------------------------------------

FOREIGN = ["os:system", "os.system", "timm", "hf:user/repo", "../other", "/etc/passwd", "local-dir:/tmp", "dcgan:DCGAN"]


@pytest.mark.parametrize("name", FOREIGN)
def test_an_architecture_is_one_that_an_installed_package_registered(name: str, tmp_path: Path) -> None:
    folder = generator_folder(tmp_path / "g")
    (folder / "config.json").write_text(json.dumps({"architecture": name}))
    with pytest.raises(cp.ProbeError, match="names the architecture"):
        cp.load(folder)


@needs_timm
@pytest.mark.parametrize("name", [*FOREIGN, "hf-hub:user/repo", "test_resnet.local-dir:/tmp", "test_resnet./x"])
def test_a_classifiers_architecture_is_one_of_timms(name: str, tmp_path: Path) -> None:
    folder = classifier_folder(tmp_path / "c")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architecture": name}))
    with pytest.raises(cp.ProbeError, match=r"no (model of timm is named|weights)|timm has no weights"):
        cp.load_classifier(folder)


@needs_timm
@pytest.mark.parametrize(
    "argument",
    [
        *("checkpoint_path", "cache_dir", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "device", "dtype"),
        *("pretrained_custom_load", "pretrained_strict", "pretrained_filter_fn", "pretrained_model_args", "no_jit"),
        *("scriptable", "exportable", "features_only", "feature_cfg", "kwargs_filter"),
    ],
)
def test_no_argument_of_a_classifiers_folder_names_a_file_or_a_function(argument: str, tmp_path: Path) -> None:
    folder = classifier_folder(tmp_path / "c")
    payload = PAYLOADS["torch"](tmp_path / "harm")
    (folder / "README.md").write_bytes(payload)
    config = json.loads((folder / "config.json").read_text())
    config["model_args"] = {argument: str(folder / "README.md")}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(cp.ProbeError, match=rf"model_args holds an unknown '{argument}'"):
        cp.load_classifier(folder)
    assert not (tmp_path / "harm").exists()


@needs_timm
@pytest.mark.parametrize("value", ["os.system", "torch.nn:GELU", "/etc/passwd", "x" * 50, {"a": 1}, 3])
def test_a_layer_of_a_classifier_is_a_word(value: Any, tmp_path: Path) -> None:
    folder = classifier_folder(tmp_path / "c")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_args": {"act_layer": value}}))
    with pytest.raises(cp.ProbeError, match=r"model_args\.act_layer is"):
        cp.load_classifier(folder)


@needs_timm
def test_the_data_configuration_reaches_timm_without_files_and_addresses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import timm

    folder = classifier_folder(tmp_path / "c")
    config = json.loads((folder / "config.json").read_text())
    config["pretrained_cfg"] |= {"file": "README.md", "url": "http://x", "hf_hub_id": "a/b", "custom_load": True}
    (folder / "config.json").write_text(json.dumps(config))
    seen: list[dict[str, Any]] = []
    made = timm.create_model

    def watched(*arguments: Any, **options: Any) -> Any:
        seen.append(options)
        return made(*arguments, **options)

    monkeypatch.setattr(timm, "create_model", watched)
    assert cp.load_classifier(folder).n_classes == 2
    assert seen
    for options in seen:
        assert options["pretrained"] is False
        assert not {"file", "url", "hf_hub_id", "custom_load"} & options["pretrained_cfg_overlay"].keys()


@needs_timm
def test_what_no_folder_could_hold_is_not_written(tmp_path: Path) -> None:
    classifier = timm_classifier("test_resnet", pretrained=False, class_names=["a", "b"], act_layer=torch.nn.SiLU)
    with pytest.raises(cp.ProbeError, match=r"made with arguments that no folder may hold \(act_layer is"):
        save_classifier(classifier, tmp_path / "c")
    assert not (tmp_path / "c").exists()


@needs_timm
def test_a_timm_that_unpickles_is_not_asked_for_pretrained_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timm.__version__", "1.0.9")
    with pytest.raises(cp.ProbeError, match=r"timm 1\.0\.9 is installed, which runs code .* --upgrade timm"):
        cp.load_classifier("resnetv2_50")


# --- what honest files hold beside tensors ------------------------------------------------------------------


def test_a_refused_global_is_named_and_options_of_a_script_are_not_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.ones(2)}, "args": argparse.Namespace(lr=0.1)}, tmp_path / "good.pth")
    assert load_weights(tmp_path / "good.pth")["state_dict"]["a"].tolist() == [1, 1]
    torch.save({"a": torch.ones(1), "module": torch.nn.Linear(1, 1)}, tmp_path / "module.pth")
    with pytest.raises(cp.ProbeError, match=r"asks for torch\.nn\.modules\.linear\.Linear, which is no tensor") as said:
        load_weights(tmp_path / "module.pth")
    assert "\x1b" not in str(said.value)


def test_the_folders_of_this_test_load(tmp_path: Path) -> None:
    """The control: what the doors above spoil is otherwise read."""
    assert cp.load(generator_folder(tmp_path / "g")).partner is not None
    if find_spec("timm") is not None:
        assert cp.load_classifier(classifier_folder(tmp_path / "c")).n_classes == 2
    shutil.rmtree(tmp_path / "g")


# --- what is fetched ----------------------------------------------------------------------------------------


@pytest.mark.skipif(find_spec("torch_fidelity") is None, reason="torch-fidelity is not installed")
def test_altered_weights_of_inception_in_the_cache_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from counterfactual_probe.fidelity.inception import SHA256, Inception

    file = tmp_path / "checkpoints" / f"weights-inception-2015-12-05-{SHA256[:8]}.pth"
    file.parent.mkdir()
    torch.save({"a": torch.ones(1)}, file)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(cp.ProbeError, match=rf"has SHA-256 .* and {SHA256[:12]}… is expected"):
        Inception()


def test_actions_of_the_workflow_are_pinned_by_commit() -> None:
    for workflow in (ROOT / ".github" / "workflows").glob("*.yml"):
        used = re.findall(r"uses: *([^\n]+)", workflow.read_text())
        assert used
        assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v[0-9.]+", action) for action in used)


def test_the_lower_bound_of_timm_is_the_first_that_reads_tensors_only() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert f"timm>={'.'.join(map(str, FIRST_SAFE))}" in extras["biggan"]
