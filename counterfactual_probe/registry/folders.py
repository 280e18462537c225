"""Generators in a folder or in a repository of the Hugging Face hub: config.json and a file of weights."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from ..base.errors import ProbeError, first_line, nearest
from ..base.files import as_path, read_json, write_bytes, write_text
from ..base.formats.schema import OpenSchema, conform
from ..base.formats.types import Name
from ..base.hub.address import HUB
from ..base.plugins import blamed_on_plugin, by_name, imported
from ..generator.adapter import GeneratorAdapter
from ..generator.state.settings import fresh_settings
from .weights import load_weights, nested_state, tensors_only

GROUP = "counterfactual_probe.architectures"
CONFIG, CARD, DISCRIMINATOR = "config.json", "README.md", "discriminator.safetensors"
# Tried in this order; the second is what older repositories hold.
WEIGHTS = ("model.safetensors", "pytorch_model.bin")


class Configuration(OpenSchema):
    """The entries of config.json that all architectures share; subclasses declare those of their own."""

    architecture: Name = ""
    name: Name = ""


def _claims_nothing(_config: Mapping[str, Any]) -> bool:
    return False


@dataclass(frozen=True)
class Architecture:
    """How the generators of a family are built from a configuration and tensors.

    A package adds one with an entry point of the group ``counterfactual_probe.architectures``.

    Attributes:
        name: what config.json calls it, ``{"architecture": name, …}``.
        build: a generator from (config, tensors by name, device), or a ProbeError that says what does not fit.
        claims: whether a configuration that names no architecture, such as another library's, belongs to the family.
        discriminator: the generator's ``partner`` from the tensors of discriminator.safetensors.
        configuration: the types and bounds of config.json's entries, which are checked before ``build``.
    """

    name: str
    build: Callable[[Mapping[str, Any], Mapping[str, Tensor], torch.device | str | None], GeneratorAdapter]
    claims: Callable[[Mapping[str, Any]], bool] = _claims_nothing
    discriminator: Callable[[Mapping[str, Tensor]], nn.Module] | None = None
    configuration: type[Configuration] = Configuration


@fresh_settings()
def load_folder(
    folder: str | os.PathLike[str],
    *,
    device: torch.device | str | None = None,
    checksums: Mapping[str, str] | None = None,
) -> GeneratorAdapter:
    """The generator in a folder with config.json and model.safetensors (or pytorch_model.bin).

    >>> cp.load("path/to/folder")  # doctest: +SKIP

    config.json names the architecture, ``{"architecture": "dcgan"}``, and holds all that the tensors do not determine.
    Weights are read as tensors only, and compared with ``checksums``, SHA-256 by file. A discriminator.safetensors
    beside them becomes the generator's ``partner``.
    """
    folder = as_path(folder)
    config = _read_config(folder / CONFIG)
    architecture = _architecture_of(config, folder)
    try:
        conform(config, architecture.configuration)
    except ValueError as error:
        raise ProbeError(
            f"{folder / CONFIG} is not that of the architecture {architecture.name!r} ({first_line(error)}); correct it"
        ) from error
    gen = architecture.build(config, folder_tensors(folder, checksums), device)
    build, beside = architecture.discriminator, folder / DISCRIMINATOR
    if build is not None and beside.is_file():
        gen.make_partner = partial(_built, build, beside, checksums)
    gen.config, gen.folder = {**config, "architecture": architecture.name}, folder
    return gen


def folder_tensors(folder: Path, checksums: Mapping[str, str] | None = None) -> dict[str, Tensor]:
    """The tensors in a folder's file of weights, by name."""
    weights = [folder / name for name in WEIGHTS if (folder / name).is_file()]
    if not weights:
        raise ProbeError(
            f"{folder} holds no weights; put {WEIGHTS[0]} (or {WEIGHTS[1]}) beside its {CONFIG}, or load another folder"
        )
    return _tensors(weights[0], checksums)


def folder_files(folder: Path) -> dict[str, dict[str, Tensor]]:
    """The tensors of a trained model's files, the discriminator's too, by file without its ending."""
    beside = folder / DISCRIMINATOR
    files = {"model": folder_tensors(folder)}
    return {**files, beside.stem: _tensors(beside, None)} if beside.is_file() else files


def _tensors(path: Path, checksums: Mapping[str, str] | None) -> dict[str, Tensor]:
    return tensors_only(nested_state(load_weights(path, (checksums or {}).get(path.name))))


def _built(
    build: Callable[[Mapping[str, Tensor]], nn.Module], path: Path, checksums: Mapping[str, str] | None
) -> nn.Module:
    """The module of a file of weights."""
    return build(_tensors(path, checksums))


def save_folder(
    folder: str | os.PathLike[str],
    architecture: str,
    tensors: Mapping[str, Tensor],
    *,
    config: Mapping[str, Any] | None = None,
    card: str | None = None,
) -> Path:
    """Write a folder that :func:`load_folder` reads, and that can be uploaded to the hub as it is.

    >>> from counterfactual_probe.registry.folders import save_folder
    >>> save_folder("my-generator", "dcgan", gen.module.state_dict(), card="# Mine")  # doctest: +SKIP

    ``config`` holds what the tensors do not determine, such as the names of classes; ``card``, the model card, becomes
    README.md.
    """
    folder = as_path(folder)
    architecture_named(architecture, f"{folder} cannot be written as the architecture {architecture!r}")
    # Tied weights share memory under two names, which the format does not allow.
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    try:
        described = json.dumps({**(config or {}), "architecture": architecture}, indent=1, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise ProbeError(
            f"the configuration for {folder} is no JSON ({first_line(error)}); give text, numbers, lists and objects"
        ) from error
    write_bytes(folder / WEIGHTS[0], safetensors.torch.save(plain))
    write_text(folder / CONFIG, described + "\n")
    if card is not None:
        write_text(folder / CARD, card)
    return folder


def is_folder(name: str) -> bool:
    """Whether a name is meant as a path and not as one of the registry."""
    if not name or name.startswith(HUB):
        return False
    if name.startswith((".", "~")) or os.sep in name or (os.altsep or os.sep) in name:
        return True
    path = as_path(name)
    return path.is_dir() or (path.suffix != "" and path.is_file())  # the latter is told what is wrong with it


def _read_config(path: Path) -> dict[str, Any]:
    if path.parent.is_file():
        raise ProbeError(
            f"{path.parent} is a file; give a folder with {CONFIG} and {WEIGHTS[0]}, or, for a module of your own that "
            "has loaded it, cp.wrap(module, …) in Python and package.module:factory on the command line"
        )
    if not path.parent.is_dir():
        raise ProbeError(f"there is no folder {path.parent}; give one with {CONFIG} and {WEIGHTS[0]}")
    if not path.is_file():
        held = sorted(item.name for item in path.parent.iterdir())[:5]
        raise ProbeError(
            f"{path.parent} has no {CONFIG} (it holds {', '.join(held) or 'nothing'}); give a folder with {CONFIG} and "
            f"{WEIGHTS[0]}"
        )
    return read_object(path)


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file; a ProbeError if it holds anything else."""
    try:
        content = read_json(path)
    except ValueError as error:
        raise ProbeError(f"{path} is no JSON ({first_line(error)}); write it again") from error
    if not isinstance(content, dict):
        raise ProbeError(f"{path} holds a {type(content).__name__} and not an object; write it again")
    return content


def _architecture_of(config: Mapping[str, Any], folder: Path) -> Architecture:
    if "architecture" in config:
        name = config["architecture"]
        return architecture_named(name, f"the {CONFIG} of {folder} names the architecture {name!r:.80}")
    known, faults = architectures()
    claimed = []
    for name, architecture in known.items():
        try:
            with blamed_on_plugin(f"architecture {name!r}", "cannot say whether it reads a folder"):
                claimed += [name] * bool(architecture.claims(config))
        except ProbeError as error:
            faults.append(error)
    if len(claimed) == 1:
        return known[claimed[0]]
    if faults and not claimed:  # it may be the folder of one of these
        raise faults[0]
    by = f"and is claimed by {' and '.join(map(repr, claimed))}" if claimed else f"(its keys: {_first_keys(config)})"
    raise ProbeError(
        f"the {CONFIG} of {folder} names no architecture {by}; add "
        f'"architecture", one of {", ".join(map(repr, claimed or known))}'
    )


def _first_keys(config: Mapping[str, Any]) -> str:
    return ", ".join(key[:60] for key in list(config)[:5]) or "none"


def architecture_named(name: Any, what: str) -> Architecture:
    """The architecture of this name, importing no other package."""
    entries = _architecture_plugins()
    if not isinstance(name, str) or name not in entries:
        raise ProbeError(
            f"{what}; nearest: {nearest(str(name), entries)} (a package adds one with an entry point of the group "
            f"{GROUP})"
        )
    return imported(entries[name], "architecture", Architecture)


def architectures() -> tuple[dict[str, Architecture], list[ProbeError]]:
    """The architectures that folders can hold, by name; and why those of other packages cannot be used."""
    usable: dict[str, Architecture] = {}
    faults = []
    for name, entries in _architecture_plugins().items():
        try:
            usable[name] = imported(entries, "architecture", Architecture)
        except ProbeError as error:
            faults.append(error)
    return usable, faults


def _architecture_plugins() -> dict[str, list[EntryPoint]]:
    return by_name(lambda: entry_points(group=GROUP), "an architecture")
