"""Generators in a folder or in a repository of the Hugging Face hub: config.json and a file of weights."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from .errors import ProbeError, first_line, nearest
from .files import read_bytes, write_bytes, write_json, write_text
from .generator import GeneratorAdapter
from .weights import load_weights, tensors_only

GROUP = "counterfactual_probe.architectures"
HUB = "hf:"
CONFIG, CARD = "config.json", "README.md"
# Tried in this order; the second is what older repositories hold.
WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def _claims_nothing(_config: Mapping[str, Any]) -> bool:
    return False


@dataclass(frozen=True)
class Architecture:
    """How the generators of a family are made from a configuration and tensors.

    A package adds one with an entry point of the group ``counterfactual_probe.architectures``.

    Attributes:
        name: what config.json calls it, ``{"architecture": name, …}``.
        build: from (config, tensors by name, device), with a ProbeError that says what does not fit.
        claims: whether a configuration that names no architecture, another library's, is one of the family.
    """

    name: str
    build: Callable[[Mapping[str, Any], Mapping[str, Tensor], torch.device | str | None], GeneratorAdapter]
    claims: Callable[[Mapping[str, Any]], bool] = _claims_nothing


def load_folder(folder: str | os.PathLike[str], *, device: torch.device | str | None = None) -> GeneratorAdapter:
    """The generator in a folder with config.json and model.safetensors (or pytorch_model.bin).

    >>> cp.load("path/to/folder")  # doctest: +SKIP

    config.json names the architecture, ``{"architecture": "dcgan"}``, and holds what the tensors do not tell.
    Weights are read as tensors only.
    """
    folder = Path(folder).expanduser()
    config = _config(folder / CONFIG)
    architecture = _architecture(config, folder)
    found = [folder / name for name in WEIGHTS if (folder / name).is_file()]
    if not found:
        raise ProbeError(
            f"{folder} holds no weights; put {WEIGHTS[0]} (or {WEIGHTS[1]}) beside its {CONFIG}, or load another folder"
        )
    tensors = tensors_only(load_weights(found[0]))
    return architecture.build(config, tensors, device)


def save_folder(
    folder: str | os.PathLike[str],
    architecture: str,
    tensors: Mapping[str, Tensor],
    *,
    config: Mapping[str, Any] | None = None,
    card: str | None = None,
) -> Path:
    """Write a folder that :func:`load_folder` reads, and that can be uploaded to the hub as it is."""
    folder = Path(folder)
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    write_bytes(folder / WEIGHTS[0], safetensors.torch.save(plain))
    write_json(folder / CONFIG, {**(config or {}), "architecture": architecture})
    if card is not None:
        write_text(folder / CARD, card)
    return folder


def load_from_hub(name: str, *, device: torch.device | str | None = None) -> GeneratorAdapter:
    """The generator of a repository ``hf:user/repo`` or ``hf:user/repo@revision``, from the hub or its local cache."""
    return load_folder(hub_folder(name), device=device)


def hub_folder(name: str) -> Path:
    """Where a repository's files lie on this machine, fetched if they are not in the hub's cache."""
    repository, _, revision = name.removeprefix(HUB).partition("@")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ProbeError(
            f"{name!r} is on the Hugging Face hub, whose client is not installed; run: pip install huggingface-hub"
        ) from None
    try:
        # Of a repository that was fetched before it needs no connection.
        patterns = [CONFIG, CARD, *WEIGHTS]
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=patterns))
    except Exception as error:  # its client's errors, and those of what it sends requests with
        raise ProbeError(
            f"{name!r} cannot be fetched from the Hugging Face hub ({type(error).__name__}: {first_line(error)}); "
            f"check the name and the connection, or fetch {CONFIG} and {WEIGHTS[0]} elsewhere and load their folder"
        ) from error


def is_folder(name: str) -> bool:
    """Whether a name is meant as a path and not as one of the registry."""
    return name.startswith((".", "~", os.sep)) or os.sep in name or (os.altsep or os.sep) in name or Path(name).is_dir()


def _config(path: Path) -> dict[str, Any]:
    if not path.parent.is_dir():
        raise ProbeError(f"there is no folder {path.parent}; give one with {CONFIG} and {WEIGHTS[0]}")
    if not path.is_file():
        held = sorted(item.name for item in path.parent.iterdir())[:5]
        raise ProbeError(
            f"{path.parent} has no {CONFIG} (it holds {', '.join(held) or 'nothing'}); give a folder with {CONFIG} and "
            f"{WEIGHTS[0]}"
        )
    try:
        found = json.loads(read_bytes(path))
    except ValueError as error:
        raise ProbeError(f"{path} is no JSON ({first_line(error)}); write it again") from error
    if not isinstance(found, dict):
        raise ProbeError(f"{path} holds a {type(found).__name__} and not an object; write it again")
    return found


def _architecture(config: Mapping[str, Any], folder: Path) -> Architecture:
    known = architectures()
    name = config.get("architecture")
    if name is None:
        claimed = [found for found in known.values() if found.claims(config)]
        if len(claimed) == 1:
            return claimed[0]
        raise ProbeError(
            f"the {CONFIG} of {folder} names no architecture (its keys: {', '.join(list(config)[:5])}); add "
            f'"architecture", one of {", ".join(map(repr, known))}'
        )
    if name not in known:
        raise ProbeError(
            f"the {CONFIG} of {folder} names the architecture {name!r}; nearest: {nearest(str(name), known)} (a "
            f"package adds one with an entry point of the group {GROUP})"
        )
    return known[name]


def architectures() -> dict[str, Architecture]:
    """The architectures that folders can hold, by name."""
    found: dict[str, Architecture] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        loaded = entry.load()
        if not isinstance(loaded, Architecture):
            raise ProbeError(f"entry point {entry.value!r} is a {type(loaded).__name__} and not an Architecture")
        found[loaded.name] = loaded
    return found
