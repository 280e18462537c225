"""Every kind of file that the library reads: a valid one, how to change it, and how it is read."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from counterfactual_probe.adapters.autoencoder import autoencoder  # noqa: F401 (its architecture is registered)
from counterfactual_probe.adapters.began import BEGANDiscriminator, BEGANGenerator
from counterfactual_probe.adapters.cdcgan import ConditionalDCGANGenerator
from counterfactual_probe.adapters.dcgan import DCGANGenerator
from counterfactual_probe.adapters.flow import UNet
from counterfactual_probe.adapters.vae import VAE
from hypothesis import strategies as st
from PIL import Image

import counterfactual_probe as cp
from counterfactual_probe.base.checkpoint import Checkpoint
from counterfactual_probe.classifiers.timm_models import save_classifier, timm_classifier
from counterfactual_probe.cli.common import modules_of, trust
from counterfactual_probe.data import open_images, read_labelled
from counterfactual_probe.registry.folders import load_folder, save_folder
from counterfactual_probe.registry.weights import load_weights, nested_state, tensors_only
from counterfactual_probe.reporting.folder import replaced
from counterfactual_probe.training.record.losses import Losses
from support import saved_results
from support.files.mutations import changed_bytes, changed_json, changed_tensors
from support.toys import PLAIN, seeded


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        content: of a valid one.
        changed: its content, with something changed.
        read: what the library does with a file of that name; the folder around it holds ``beside``.
        name: of the file.
        beside: other files of the same folder.
    """

    content: bytes
    changed: st.SearchStrategy[bytes]
    read: Callable[[Path], Any]
    name: str = "file"
    beside: dict[str, bytes] | None = None

    def try_in(self, folder: Path, content: bytes) -> None:
        """Read a file of this content."""
        folder.mkdir()
        for name, other in (self.beside or {}).items():
            (folder / name).write_bytes(other)
        (folder / self.name).write_bytes(content)
        self.read(folder / self.name)


def _of_result(result: Any, path: Path) -> Kind:
    def read(place: Path) -> None:
        loaded = type(result).load(place)
        for shown in (repr, str):
            shown(loaded)
        loaded.to_json()
        loaded.to_csv()

    content = path.read_bytes()
    score = path.suffix == ".json"
    return Kind(content, changed_json(json.loads(content)) if score else changed_tensors(content), read)


def _results(folder: Path) -> dict[str, Kind]:
    kinds = {}
    for name, result in saved_results.results().items():
        path = result.save(folder / name)
        kinds[name.partition(".")[0]] = _of_result(result, path)
    return kinds


def _bases(folder: Path) -> dict[str, Kind]:
    generator = PLAIN.generator()
    kinds = {}
    for name, basis in (
        ("PCA", cp.bases.PCA(3).fit(generator, "main.2", n_samples=4)),
        ("Linear", cp.bases.Linear(torch.eye(6)[:3]).of(generator, "main.2")),
    ):
        content = basis.save(folder / name).read_bytes()
        kinds[f"basis {name}"] = Kind(content, changed_tensors(content), lambda p, b=basis: repr(type(b).load(p)))
    return kinds


def _generators(folder: Path) -> dict[str, Kind]:
    with seeded(0):
        states: dict[str, tuple[Any, dict[str, Any]]] = {
            "dcgan": (DCGANGenerator(3, [4, 2], 1), {"name": "small"}),
            "cdcgan": (ConditionalDCGANGenerator(4, 2, [4, 2], 3), {"classes": ["day", "night"]}),
            "vae": (VAE(4, (4, 2), 1, image_size=16, start=4), {}),
            "began": (BEGANGenerator(4, 4, 1, image_size=16), {}),
            "flow": (UNet((8, 16), 1, time=8), {"image_size": 8, "steps": 2}),
            "autoencoder": (
                cp.autoencoders.StructuralAutoencoder(4, 2, image_size=16, width=8, convolutions=4),
                {"name": "sae"},
            ),
        }
        discriminator = BEGANDiscriminator(4, 4, 1, image_size=16).state_dict()
    kinds = {}
    for name, (module, config) in states.items():
        place = save_folder(folder / name, name, module.state_dict(), config=config)
        files = {path.name: path.read_bytes() for path in place.iterdir()}
        kinds |= _folder_kinds(name, files, lambda path: load_folder(path.parent))
    save_folder(folder / "d", "began", discriminator)
    content = (folder / "d" / "model.safetensors").read_bytes()
    beside = {path.name: path.read_bytes() for path in (folder / "began").iterdir()}
    kinds["discriminator"] = Kind(
        content, changed_tensors(content), lambda p: load_folder(p.parent).partner, "discriminator.safetensors", beside
    )
    return kinds | _torch_files(states["dcgan"][0].state_dict())


def _folder_kinds(name: str, files: dict[str, bytes], read: Callable[[Path], Any]) -> dict[str, Kind]:
    """Changes of the configuration, and of the weights."""
    config, weights = files["config.json"], files["model.safetensors"]
    return {
        f"{name}'s config": Kind(config, changed_json(json.loads(config)), read, "config.json", files),
        f"{name}'s weights": Kind(weights, changed_tensors(weights), read, "model.safetensors", files),
    }


def _torch_files(state: dict[str, Any]) -> dict[str, Kind]:
    kinds = {}
    for name, options in (("torch", {}), ("torch before 1.6", {"_use_new_zipfile_serialization": False})):
        buffer = io.BytesIO()
        torch.save({"state_dict": state, "epoch": 3}, buffer, **options)
        content = buffer.getvalue()
        kinds[name] = Kind(content, changed_bytes(content), lambda p: tensors_only(nested_state(load_weights(p))))
    return kinds


def _classifiers(folder: Path) -> dict[str, Kind]:
    if find_spec("timm") is None:
        return {}
    made = timm_classifier("test_resnet", pretrained=False, class_names=["a", "b"], drop_rate=0.1)
    place = save_classifier(made, folder / "classifier")
    files = {path.name: path.read_bytes() for path in place.iterdir()}
    return _folder_kinds("classifier", files, lambda path: cp.load_classifier(path.parent))


def _runs(folder: Path) -> dict[str, Kind]:
    """Progress, losses, modules for the commands, the list of a report's files."""
    path = folder / "progress"
    cp.InfluenceMap(PLAIN.generator(), "main.2").attribute(n_pairs=1, checkpoint=path)
    Checkpoint(path, {"seed": 0}).save({"sums": torch.arange(4.0)}, {"position": 3})
    progress = path.read_bytes()
    losses = Losses()
    losses.add({"loss": torch.tensor(1.0), "other": torch.tensor(0.25)})
    losses.flush(lambda rows: rows)
    losses.save(folder / "losses.csv")
    rows, digest = (folder / "losses.csv").read_bytes(), losses.digest()
    modules = {"modules": [{"main.2": [0, 3]}, {"main.6": [1]}], "expected_ari": 0.5, "labels": [0, 1]}
    listing = json.dumps({"files": ["maps-main.2.safetensors"]}).encode()

    def report(place: Path) -> None:
        with replaced(place.parent, page="report.html", listing="report.json") as inside:
            (inside / "report.html").write_text("new")

    return {
        "checkpoint": Kind(progress, changed_tensors(progress), lambda p: Checkpoint(p, {"seed": 0}).load()),
        "losses": Kind(rows, changed_bytes(rows), lambda p: Losses().load(p, 1, digest)),
        "modules file": Kind(json.dumps(modules).encode(), changed_json(modules), lambda p: trust(modules_of(str(p)))),
        "report's listing": Kind(listing, changed_json(json.loads(listing)), report, "report.json"),
    }


def _pictures(folder: Path) -> dict[str, Kind]:
    pixels = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    kinds = {}
    for suffix, options in (
        ("png", {}),
        ("jpg", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"}),
        ("webp", {}),
        ("gif", {"save_all": True, "append_images": [Image.new("RGB", (8, 8), "red")]}),
        ("tif", {"compression": "tiff_lzw"}),
        ("bmp", {}),
        ("ppm", {}),
    ):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, {"jpg": "jpeg", "tif": "tiff"}.get(suffix, suffix), **options)
        content = buffer.getvalue()
        kinds[f"picture .{suffix}"] = Kind(content, changed_bytes(content), _open_folder, f"a.{suffix}")
    array = np.moveaxis(pixels, -1, 0)[None].repeat(3, 0)
    buffer = io.BytesIO()
    np.save(buffer, array)
    kinds["array"] = Kind(buffer.getvalue(), changed_bytes(buffer.getvalue()), open_images, "a.npy")
    kinds["zip"] = _zip({f"{k}/a.png": kinds["picture .png"].content for k in "ab"}, "a.zip", open_images)
    kinds["labelled .npz"] = _zip({"images.npy": buffer.getvalue()}, "a.npz", read_labelled)
    open_images(array, cache=folder / "cache")
    cache = (folder / "cache").read_bytes()
    kinds["cache"] = Kind(cache, changed_tensors(cache), lambda p: repr(open_images(array, cache=p)))
    return kinds


def _open_folder(path: Path) -> Any:
    return open_images(path.parent, skip_unreadable=True)


def _zip(files: dict[str, bytes], name: str, read: Callable[[Path], Any]) -> Kind:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, content in files.items():
            archive.writestr(file, content)
    return Kind(buffer.getvalue(), changed_bytes(buffer.getvalue()), read, name)


@cache
def kinds(folder: Path) -> dict[str, Kind]:
    """All kinds, by name; valid files are written into the folder once."""
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, Kind] = {}
    for make in (_results, _bases, _generators, _classifiers, _runs, _pictures):
        found |= make(folder)
    return found
