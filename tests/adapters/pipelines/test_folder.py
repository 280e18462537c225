"""Folders that diffusers wrote: the same generator, and neither pickles nor code."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import counterfactual_probe as cp

LAYER = "unet.mid_block#2"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    from support.adapters import pipelines

    folder, pipe = tmp_path_factory.mktemp("pipelines") / "tiny", pipelines.stable_diffusion()
    pipe.save_pretrained(folder)
    return folder, pipe


def test_a_folder_gives_what_the_pipeline_gave(written: tuple[Path, Any]) -> None:
    folder, pipe = written
    loaded = cp.load(folder, steps=2, layers=[LAYER], prompts=["a cat", "a dog"])
    wrapped = cp.wrap(pipe, steps=2, layers=[LAYER], prompts=["a cat", "a dog"])
    assert loaded.name == "tiny"
    assert torch.equal(loaded(loaded.sample(2, seed=0)), wrapped(wrapped.sample(2, seed=0)))


def test_a_repository_is_fetched_without_pickles(written: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    huggingface_hub = pytest.importorskip("huggingface_hub")
    from types import SimpleNamespace

    folder, _ = written
    wanted: list[str] = []

    def download(_repository: str, *, allow_patterns: list[str], **_options: Any) -> str:
        wanted.extend(allow_patterns)
        return str(folder)

    held = [SimpleNamespace(rfilename=name) for name in ("model_index.json", "unet/diffusion_pytorch_model.bin")]
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: SimpleNamespace(siblings=held))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert cp.load("hf:user/tiny", steps=1, layers=["unet.mid_block"]).image_size == (3, 16, 16)
    assert "*/*.safetensors" in wanted
    assert not any(pattern.endswith((".bin", ".py", "*")) for pattern in wanted)


def pickled(folder: Path) -> None:
    (folder / "unet" / "diffusion_pytorch_model.safetensors").rename(folder / "unet" / "diffusion_pytorch_model.bin")


def foreign(folder: Path) -> None:
    rewrite(folder / "model_index.json", lambda index: {**index, "unet": ["my_code", "UNet"]})
    (folder / "unet" / "my_code.py").write_text("raise SystemExit('code of the folder was run')")


def custom(folder: Path) -> None:
    rewrite(folder / "model_index.json", lambda index: {**index, "_class_name": ["pipeline", "Mine"]})
    (folder / "pipeline.py").write_text("raise SystemExit('code of the folder was run')")


def pointing(folder: Path) -> None:
    rewrite(folder / "unet" / "config.json", lambda config: {**config, "auto_map": {"AutoModel": "code.UNet"}})


def unknown(folder: Path) -> None:
    rewrite(folder / "model_index.json", lambda index: {**index, "_class_name": "StableDifusionPipeline"})


def cut(folder: Path) -> None:
    (folder / "model_index.json").write_text('{"_class_name": ')


def listed(folder: Path) -> None:
    (folder / "model_index.json").write_text("[1]")


def missing(folder: Path) -> None:
    shutil.rmtree(folder / "vae")


def outside(folder: Path) -> None:
    rewrite(folder / "model_index.json", lambda index: {**index, "../unet": ["diffusers", "UNet2DModel"]})


def damaged(folder: Path) -> None:
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"no tensors")


def rewrite(path: Path, change: Callable[[Any], Any]) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (pickled, r"unet are 'diffusion_pytorch_model\.bin', which can hold code, and no safetensors"),
        (foreign, r"the component 'unet' of .* is 'UNet' of 'my_code'; only those of diffusers and transformers"),
        (custom, r"names the pipeline \['pipeline', 'Mine'\], which diffusers .* does not have"),
        (pointing, r"config\.json points to code \(auto_map\), which is not run"),
        (unknown, r"names the pipeline 'StableDifusionPipeline'.*; nearest: 'StableDiffusionPipeline'"),
        (cut, r"model_index\.json is no JSON"),
        (listed, r"model_index\.json holds a list and not an object"),
        (missing, r"has no folder 'vae', which its model_index\.json names"),
        (outside, r"names a component '\.\./unet', which is no folder's name"),
        (damaged, r"cannot be loaded \(.*\); write it again"),
    ],
)
def test_what_is_not_loaded(
    change: Callable[[Path], None], message: str, written: tuple[Path, Any], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(written[0], tmp_path / "copy"))
    change(folder)
    with pytest.raises(cp.ProbeError, match=message):
        cp.load(folder, steps=1)


def test_others_take_no_options(tmp_path: Path) -> None:
    with pytest.raises(cp.ProbeError, match="'dcgan-faces' is no pipeline and takes no steps; leave it out"):
        cp.load("dcgan-faces", steps=3)
    with pytest.raises(cp.ProbeError, match="is no pipeline and takes no steps; leave it out"):
        cp.load(tmp_path, steps=3)
