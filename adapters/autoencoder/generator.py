"""The autoencoders of S004 as generators, from a state dict alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from counterfactual_probe.autoencoders import (
    AdaptiveAutoencoder,
    Autoencoder,
    LadderAutoencoder,
    StructuralAutoencoder,
    VariationalAutoencoder,
)
from counterfactual_probe.autoencoders.sampling import mixed
from counterfactual_probe.base.errors import ProbeError
from counterfactual_probe.generator.adapter import GeneratorAdapter
from counterfactual_probe.generator.encoding import encoded
from counterfactual_probe.generator.state.settings import fresh_settings
from counterfactual_probe.registry.folders import Architecture
from counterfactual_probe.registry.weights import built, first_names, require_image, tensors_only

WAYS = ("hybrid", "prior")


class AutoencoderAdapter(GeneratorAdapter):
    """A generator that also encodes images."""

    module: Autoencoder

    def encode(self, images: Tensor) -> Tensor:
        """Codes (n, latent) of images (n, C, H, W) with values 0…1; for a variational model, the posterior's means.

        >>> z1, z2 = gen.encode(photos), gen.encode(others)  # doctest: +SKIP

        Raises:
            ProbeError: the images' size, number of colours or range is not the generator's.
        """
        (codes,) = encoded(self, images, lambda batch: (self.module.encode(batch),))
        return codes


@dataclass(frozen=True, eq=False)
class CodeSampler:
    """Samples codes (n, latent): from the prior, or hybrids of the stored codes."""

    latent: int
    stored: Tensor
    usual: str
    name: str

    def __call__(self, n: int, rng: torch.Generator, *, way: str | None = None, groups: int | None = None) -> Tensor:
        way = self.usual if way is None else way
        if way not in WAYS:
            raise ProbeError(f"way is {way!r}; give 'hybrid' or 'prior'")
        if way == "prior":
            if groups is not None:
                raise ProbeError("groups have no effect with way='prior'; leave them out, or give way='hybrid'")
            return torch.randn(n, self.latent, generator=rng)
        if not len(self.stored):
            raise ProbeError(f"{self.name} holds no codes of training images to make hybrids of; give way='prior'")
        return mixed(self.stored.float().cpu(), n, groups, rng)


@fresh_settings()
def autoencoder(
    state_dict: Mapping[str, Any], *, device: torch.device | str | None = None, name: str = "autoencoder"
) -> AutoencoderAdapter:
    """A generator from the state dict of a model of :mod:`counterfactual_probe.autoencoders`, which follows from it.

    >>> from counterfactual_probe.adapters.autoencoder import autoencoder
    >>> model = cp.autoencoders.StructuralAutoencoder(6, 3, image_size=16, width=8, convolutions=4)
    >>> gen = autoencoder(model.state_dict())
    >>> gen.image_size, list(gen.layers)
    ((3, 16, 16), ['decoder.block1', 'decoder.block2', 'decoder.block3'])

    ``gen.sample(8)`` samples from the prior if the model is variational; otherwise it makes hybrids of the codes that
    were stored in training (S004 §2.3). ``gen.sample(8, way="prior")`` and ``way="hybrid"`` choose. Hybrids mix single
    dimensions, as in the authors' code; ``groups=6`` keeps the dimensions of each of six variables together.

    Raises:
        ProbeError: the tensors are not those of one; the message says what differs.
    """
    state = tensors_only(state_dict)
    stored = state.get("codes", torch.empty(0, 0))

    def make() -> Autoencoder:
        module = _module(state)
        module.codes = torch.empty(stored.shape)
        return module

    module = built(make, state, "an autoencoder of its kernels' sizes")
    usual = "hybrid" if len(stored) and not module.variational else "prior"

    gen = AutoencoderAdapter(
        module.eval(),
        CodeSampler(module.backbone.latent, stored, usual, name),
        layers=[f"decoder.{block}" for block in module.decoder.names if block != "image"],
        image_range=(0.0, 1.0),
        device=device,
        name=name,
    )
    gen.make_partner = partial(gen.module.get_submodule, "encoder")
    return gen


def _module(state: Mapping[str, Tensor]) -> Autoencoder:
    """The model that has these tensors, with random weights."""
    first, codes, size = (state.get(key) for key in ("encoder.block1.0.weight", "codes", "encoder.image_size"))
    if first is None or codes is None or size is None or first.dim() != 4 or codes.dim() != 2 or size.dim() != 0:
        raise ProbeError(
            "the state dict holds no encoder.block1.0.weight, codes and encoder.image_size of an autoencoder (its "
            f"first keys: {first_names(state)}); give that of a complete one"
        )
    latent = codes.shape[1]
    sizes: dict[str, Any] = {
        "image_size": int(size),
        "width": first.shape[0],
        "convolutions": _count(state, "encoder.block{}.0.weight"),
        "colours": first.shape[1],
    }
    require_image(sizes["image_size"], sizes["width"], "an autoencoder")
    if rungs := _count(state, "decoder.rung{}.mlp.0.weight"):
        return LadderAutoencoder(latent, rungs, **sizes)
    if transforms := _count(state, "decoder.transform{}.mlp.0.weight"):
        given = state["decoder.transform1.mlp.0.weight"].shape[-1]
        # With a single transform both models give it the whole code.
        structural = given * transforms == latent
        return (StructuralAutoencoder if structural else AdaptiveAutoencoder)(latent, transforms, **sizes)
    outputs = state.get("encoder.dense.5.bias")
    variational = outputs is not None and len(outputs) == 2 * latent
    return (VariationalAutoencoder if variational else Autoencoder)(latent, **sizes)


def _count(state: Mapping[str, Tensor], name: str) -> int:
    count = 0
    while name.format(count + 1) in state:
        count += 1
    return count


ARCHITECTURE = Architecture(
    "autoencoder",
    lambda config, tensors, device: autoencoder(tensors, device=device, name=str(config.get("name", "autoencoder"))),
)
