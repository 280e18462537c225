"""BigGAN-deep on ImageNet, with weights in a folder of the user's, or on the hub."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from counterfactual_probe.base.errors import ProbeError, first_line
from counterfactual_probe.registry.pretrained import PretrainedGenerator

if TYPE_CHECKING:
    import torch

    from counterfactual_probe.generator.adapter import GeneratorAdapter

FOLDERS = "COUNTERFACTUAL_PROBE_BIGGAN"
# The only one of the three for which a repository with the published files is known.
REPOSITORIES = {"biggan-deep-128": "osanseviero/BigGAN-deep-128"}


def _load_named(name: str, size: int, device: torch.device | str | None) -> GeneratorAdapter:
    """Load from the folder that the environment variable names, or from the hub or its cache; never random weights."""
    from counterfactual_probe.base.files import as_path
    from counterfactual_probe.registry.folders import load_folder
    from counterfactual_probe.registry.hub import hub_folder

    where = (
        f"put the config.json and pytorch_model.bin (or model.safetensors) of {name} into a folder of that name and "
        f"set {FOLDERS} to the folder around it, or load the folder itself with cp.load('./path/to/{name}'), or a "
        "repository of the hub that holds them with cp.load('hf:user/repository')"
    )
    if around := os.environ.get(FOLDERS):
        folder = as_path(around) / name
        if not folder.is_dir():
            raise ProbeError(f"{FOLDERS} is {around!r}, which holds no folder {name}; {where}")
    elif name in REPOSITORIES:
        try:
            folder = hub_folder(REPOSITORIES[name])
        except ProbeError as error:
            reason = first_line(error.__cause__ or error)
            raise ProbeError(f"the weights of {name} were not found; {where} (from the hub: {reason})") from error
    else:
        raise ProbeError(f"the weights of {name} were not found; {where}")
    generator = load_folder(folder, device=device)
    if generator.image_size[1] != size:
        raise ProbeError(
            f"{folder} holds a generator of {generator.image_size[1]} pixels and {name} has {size}; {where}"
        )
    return generator


def _pretrained_biggan(size: int) -> PretrainedGenerator:
    name = f"biggan-deep-{size}"
    return PretrainedGenerator(
        name=name,
        summary=f"{size}×{size} images of ImageNet's 1000 classes by BigGAN-deep (latent 128, class, truncation)",
        trained_on="ImageNet (ILSVRC 2012): photographs, for non-commercial research",
        licence="Apache (the package that published the weights, converted from DeepMind's)",
        source=f"config.json and pytorch_model.bin of {name}, as published for pytorch-pretrained-biggan: in "
        + (f"{REPOSITORIES[name]} on the Hugging Face hub, or " if name in REPOSITORIES else "")
        + f"a folder {name} in ${FOLDERS}",
        install='pip install "counterfactual-probe[biggan]"',
        load=lambda device: _load_named(name, size, device),
    )


DEEP_128, DEEP_256, DEEP_512 = _pretrained_biggan(128), _pretrained_biggan(256), _pretrained_biggan(512)
