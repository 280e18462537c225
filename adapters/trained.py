"""Generators that ship in this package: trained by its own command, kept in float16, their partners beside them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from counterfactual_probe.base.files import read_bytes
from counterfactual_probe.generator.adapter import GeneratorAdapter
from counterfactual_probe.registry.folders import load_folder
from counterfactual_probe.registry.pretrained import PretrainedGenerator
from counterfactual_probe.registry.regions import Regions
from counterfactual_probe.training import Trainable

from . import began_recipe, dcgan_recipe, vae_recipe
from .dcgan import FACES, face_regions

FOLDER = Path(__file__).parent / "trained"
CHECKSUMS = FOLDER / "SHA256SUMS"
_OF_FACES = f"samples of dcgan-faces, none of them real; what that was trained on: {FACES.trained_on}"
_OF_CIFAR = "CIFAR-10 (Krizhevsky 2009): photographs of ten classes, a part of the Tiny Images data set, for research"


def checksums(name: str) -> dict[str, str]:
    """SHA-256 of a model's files, by file."""
    pairs = [line.split(maxsplit=1) for line in read_bytes(CHECKSUMS).decode().splitlines()]
    return {path.partition("/")[2]: digest for digest, path in pairs if path.partition("/")[0] == name}


def _entry(recipe: Trainable, trained_on: str) -> PretrainedGenerator:
    def load(device: torch.device | str | None) -> GeneratorAdapter:
        return load_folder(FOLDER / recipe.name, device=device, checksums=checksums(recipe.name))

    return PretrainedGenerator(
        name=recipe.name,
        summary=recipe.summary,
        trained_on=trained_on,
        licence="MIT, as far as the data's terms allow",
        source=f"counterfactual-probe train {recipe.name}",
        install="pip install counterfactual-probe",
        load=load,
        regions=_regions if trained_on is _OF_FACES else None,
    )


def _regions() -> Regions:
    """The parts of the faces that they were trained on; nothing is expected of their modules."""
    return replace(face_regions(), layer="", expected=())


VAE_FACES = _entry(vae_recipe.VAE_FACES, _OF_FACES)
VAE_FACES_SHARP = _entry(vae_recipe.VAE_FACES_SHARP, _OF_FACES)
VAE_CIFAR10 = _entry(vae_recipe.VAE_CIFAR10, _OF_CIFAR)
BEGAN_FACES = _entry(began_recipe.BEGAN_FACES, _OF_FACES)
DCGAN_FACES_SMALL = _entry(dcgan_recipe.DCGAN_FACES_SMALL, _OF_FACES)
DCGAN_CIFAR10 = _entry(dcgan_recipe.DCGAN_CIFAR10, _OF_CIFAR)
