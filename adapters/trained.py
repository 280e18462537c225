"""Weights that ship in this package: trained by its own command and stored in float16."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from counterfactual_probe.base.files import read_bytes
from counterfactual_probe.generator.adapter import GeneratorAdapter
from counterfactual_probe.registry.folders import load_folder
from counterfactual_probe.registry.regions import Regions

from .dcgan.generator import face_regions

FOLDER = Path(__file__).parent / "trained"
CHECKSUMS = FOLDER / "SHA256SUMS"


def load_trained(name: str, device: torch.device | str | None) -> GeneratorAdapter:
    return load_folder(FOLDER / name, device=device, checksums=checksums(name))


def checksums(name: str) -> dict[str, str]:
    """The known SHA-256 of a model's files, by file name."""
    pairs = [line.split(maxsplit=1) for line in read_bytes(CHECKSUMS).decode().splitlines()]
    return {path.partition("/")[2]: digest for digest, path in pairs if path.partition("/")[0] == name}


def unexpected_face_regions() -> Regions:
    """The parts of the faces that the models were trained on, without any expectation about modules."""
    return replace(face_regions(), layer="", expected=())
