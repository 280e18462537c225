"""Generators that ship in this package; ``counterfactual-probe train NAME`` trains each again."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from counterfactual_probe.registry.pretrained import PretrainedGenerator

from .dcgan import FACES

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from counterfactual_probe.generator.adapter import GeneratorAdapter
    from counterfactual_probe.registry.regions import Regions

_OF_FACES = f"samples of dcgan-faces, none of them real; what that was trained on: {FACES.trained_on}"
_OF_CIFAR = "CIFAR-10 (Krizhevsky 2009): photographs of ten classes, a part of the Tiny Images data set, for research"


def _card(
    name: str, summary: str, trained_on: str, regions: Callable[[], Regions] | None = None
) -> PretrainedGenerator:
    def load(device: torch.device | str | None) -> GeneratorAdapter:
        from ..trained import load_trained

        return load_trained(name, device)

    return PretrainedGenerator(
        name=name,
        summary=summary,
        trained_on=trained_on,
        licence="MIT, as far as the data's terms allow",
        source=f"counterfactual-probe train {name}",
        install="pip install counterfactual-probe",
        load=load,
        regions=regions,
    )


def _regions() -> Regions:
    from ..trained import unexpected_face_regions

    return unexpected_face_regions()


def _halved_regions() -> Regions:
    """Those of faces at half the size."""
    faces = _regions()
    return replace(faces, masks={name: mask[::2, ::2] for name, mask in faces.masks.items()})


VAE_FACES = _card(
    "vae-faces",
    "64×64 faces by the β-VAE of S001 (4 deconvolutions: 64, 64, 32, 16 and 3 channels; latent 128)",
    _OF_FACES,
    _regions,
)
VAE_FACES_SHARP = _card(
    "vae-faces-sharp",
    "64×64 faces by the β-VAE of S001, with a tenth of β: sharper images, of latents further from the prior",
    _OF_FACES,
    _regions,
)
VAE_CIFAR10 = _card(
    "vae-cifar10",
    "32×32 natural images by the β-VAE of S001 (3 deconvolutions: 64, 32, 16 and 3 channels; latent 128)",
    _OF_CIFAR,
)
BEGAN_FACES = _card(
    "began-faces", "64×64 faces by a BEGAN (Berthelot et al. 2017; latent 64, 32 channels)", _OF_FACES, _regions
)
DCGAN_FACES_SMALL = _card(
    "dcgan-faces-small",
    "64×64 faces by the DCGAN of S001 (128, 64, 32, 16 and 3 channels; latent 150)",
    _OF_FACES,
    _regions,
)
DCGAN_CIFAR10 = _card(
    "dcgan-cifar10", "32×32 natural images by the DCGAN of S001 (64, 32, 16 and 3 channels; latent 150)", _OF_CIFAR
)
FLOW_FACES = _card(
    "flow-faces",
    "32×32 faces by a rectified flow (a U-Net of 32, 64 and 128 channels in 8 Euler steps)",
    _OF_FACES,
    _halved_regions,
)
