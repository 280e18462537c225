"""Painted eyes by a class-conditional DCGAN, from a wheel of another project."""

from __future__ import annotations

from typing import TYPE_CHECKING

from counterfactual_probe.registry.pretrained import PretrainedGenerator

from ..wheels import install_command, wheel_file

if TYPE_CHECKING:
    import torch

    from counterfactual_probe.generator.adapter import GeneratorAdapter

PACKAGE, VERSION = "omniart-eye-generator", "0.1"
WEIGHTS = "omniart_eye_generator/generator_model_state.pth"
WEIGHTS_SHA256 = "dd486abbd738bfe3d28ddd46987bec11e3842ddcc8c28ccc5251b52c6ecf4da0"
EYE_COLOURS = ("amber", "blue", "brown", "gray", "grayscale", "green", "hazel", "red")


def _load_eyes(device: torch.device | str | None) -> GeneratorAdapter:
    from counterfactual_probe.registry.weights import load_weights

    from ..cdcgan.generator import cdcgan

    state = load_weights(wheel_file(PACKAGE, VERSION, WEIGHTS), WEIGHTS_SHA256)
    generator = cdcgan(state, EYE_COLOURS, device=device, name=EYES.name)
    generator.config = {"architecture": "cdcgan", "classes": list(EYE_COLOURS)}
    return generator


EYES = PretrainedGenerator(
    name="cdcgan-eyes",
    summary="128×128 painted eyes of eight colours by a class-conditional DCGAN (latent 100; 1024 to 64 channels); "
    f"classes: {', '.join(EYE_COLOURS)}",
    trained_on="OmniArt Eye Dataset (Knoester, University of Amsterdam): painted eyes, by colour; its terms are not "
    "stated with the weights",
    licence="MIT (weights and their code, by Rogier Knoester)",
    source=f"PyPI {PACKAGE} {VERSION}, {WEIGHTS}",
    install=install_command(PACKAGE, VERSION),
    load=_load_eyes,
)
