"""How S004's autoencoders are trained (its appendix A.2.2)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from counterfactual_probe.autoencoders import (
    AdaptiveAutoencoder,
    Autoencoder,
    LadderAutoencoder,
    StructuralAutoencoder,
    VariationalAutoencoder,
)
from counterfactual_probe.autoencoders.encoders import Encoder, LadderEncoder
from counterfactual_probe.autoencoders.losses import authors_divergence, cross_entropy, discrepancy, divergence
from counterfactual_probe.base.errors import ProbeError, whole
from counterfactual_probe.training import Networks, Recipe, Step, Trainable, Update
from counterfactual_probe.training.recipe import linear_warmup

DIVERGENCES = {"gaussian": divergence, "authors": authors_divergence}


@dataclass
class AERecipe(Recipe):
    """The plain ("hourglass") autoencoder: cross-entropy, summed over pixels and colours of images with values 0…1.

    The codes of the last batch are stored, for hybrid sampling.

    Attributes:
        latent: dimensions of the code.
        width: channels of every convolution.
        convolutions: their number in the encoder, and in the decoder.
    """

    architecture: ClassVar[str] = "autoencoder"
    model: ClassVar[type[Autoencoder]] = Autoencoder
    batch: int = 128
    lr: float = 5e-4
    latent: int = 12
    width: int = 64
    convolutions: int = 12

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("latent", "width", "convolutions"):
            whole(getattr(self, name), name, 1)

    def networks(self, image: tuple[int, int, int]) -> dict[str, nn.Module]:
        sizes = {"width": self.width, "convolutions": self.convolutions}
        module = self.model(**self._latents(), image_size=image[1], colours=image[0], **sizes)
        return {"encoder": module.encoder, "decoder": module.decoder}

    def _latents(self) -> dict[str, int]:
        return {"latent": self.latent}

    def optimisers(self, networks: Mapping[str, nn.Module]) -> dict[str, torch.optim.Optimizer]:
        both = [parameter for network in networks.values() for parameter in network.parameters()]
        return {"autoencoder": torch.optim.Adam(both, self.lr, betas=(0.9, 0.999), fused=True)}

    def step(self, step: Step) -> Iterator[Update]:
        images = (step.images + 1) / 2
        encoded = step.networks["encoder"](images)
        codes, means, penalty = self.regularised(step, encoded)
        entropy = cross_entropy(step.networks["decoder"](codes, logits=True), images)
        self.state["codes"] = means.detach().float()
        loss = entropy + penalty["penalty"] if penalty else entropy
        shown = {name: value for name, value in penalty.items() if name != "penalty"}
        yield Update("autoencoder", loss, {"loss": loss, "reconstruction": entropy, **shown})

    def regularised(self, step: Step, encoded: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Codes for the decoder, their means, and the penalty together with its terms, by name."""
        del step
        return encoded, encoded, {}

    def samples(self, networks: Networks, step: Step) -> Tensor:
        stored = self.state.get("codes")
        if stored is None or self.model.variational:
            codes = step.normal(self.latent)
        else:
            chosen = ((step.uniform(self.latent) + 1) / 2 * len(stored)).long().clamp(max=len(stored) - 1)
            codes = stored.gather(0, chosen)
        images: Tensor = networks["decoder"](codes)
        return 2 * images - 1

    def reconstructions(self, networks: Networks, images: Tensor) -> Tensor:
        codes: Tensor = networks["encoder"]((images + 1) / 2)[:, : self.latent]
        made: Tensor = networks["decoder"](codes)
        return 2 * made - 1

    def files(self, networks: Mapping[str, nn.Module]) -> dict[str, dict[str, Tensor]]:
        model = {
            f"{name}.{key}": value for name, network in networks.items() for key, value in network.state_dict().items()
        }
        return {"model": {**model, "codes": self.state.get("codes", torch.empty(0, self.latent))}}


@dataclass
class SAERecipe(AERecipe):
    """A structural autoencoder, SAE-k.

    Attributes:
        variables: k; must divide the latent.
    """

    model: ClassVar[type[Autoencoder]] = StructuralAutoencoder
    variables: int = 12

    def _latents(self) -> dict[str, int]:
        return {"latent": self.latent, "variables": self.variables}


@dataclass
class AdaAERecipe(SAERecipe):
    """An adaptive autoencoder, AdaAE-k: as SAE-k, but every transform receives the whole code."""

    model: ClassVar[type[Autoencoder]] = AdaptiveAutoencoder


@dataclass
class WAERecipe(AERecipe):
    """A Wasserstein autoencoder: cross-entropy + ``mmd`` · maximum mean discrepancy of the codes from N(0, 1).

    Attributes:
        mmd: weight of the discrepancy.
        per_batch: divide the discrepancy by the batch size, as the authors' code does, which makes it very small.
    """

    mmd: float = 10.0
    per_batch: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("mmd")
        if self.batch < 2:
            raise ProbeError(f"batch is {self.batch}; the discrepancy compares codes of a batch, so give at least 2")

    def regularised(self, step: Step, encoded: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        value = discrepancy(encoded.float(), step.normal(self.latent).float())
        weight = self.mmd / (len(encoded) if self.per_batch else 1)
        return encoded, encoded, {"penalty": weight * value, "discrepancy": value}


@dataclass
class VariationalRecipe(AERecipe):
    """A VAE on the same backbone: cross-entropy + ``beta`` · KL from N(0, 1), summed over dimensions.

    Attributes:
        beta: weight of the KL: 1 for a VAE; 2 is the β-VAE of S004's tables.
        kl: "gaussian", or "authors", the formula in the authors' code, which has σ where σ² belongs.
        anneal: number of steps in which the KL's weight rises linearly to ``beta``. With 0, dimensions may be given up
            before the decoder has learnt to use them.
        deviation: approximate standard deviation of the posterior at the start. The authors' is 1, with which codes are
            mostly noise; small models learn several times as fast with 0.05.
    """

    model: ClassVar[type[Autoencoder]] = VariationalAutoencoder
    beta: float = 1.0
    kl: str = "gaussian"
    anneal: int = 0
    deviation: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        whole(self.anneal, "anneal", 0)
        self.require_positive("beta", "deviation")
        if self.kl not in DIVERGENCES:
            raise ProbeError(f"kl is {self.kl!r}; give one of {', '.join(DIVERGENCES)}")

    def networks(self, image: tuple[int, int, int]) -> dict[str, nn.Module]:
        made = super().networks(image)
        with torch.no_grad():
            for head in cast("Encoder | LadderEncoder", made["encoder"]).heads():
                head.bias[len(head.bias) // 2 :] += math.log(self.deviation)
        return made

    def regularised(self, step: Step, encoded: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        mean, log_deviation = encoded.float().chunk(2, 1)
        value = DIVERGENCES[self.kl](mean, log_deviation)
        codes = mean + log_deviation.exp() * step.normal(self.latent)
        weight = self.beta * linear_warmup(step.number, self.anneal)
        return codes, mean, {"penalty": weight * value, "kl": value}


@dataclass
class VLAERecipe(VariationalRecipe):
    """A variational ladder autoencoder, VLAE-k.

    Attributes:
        variables: k; must divide the latent.
    """

    model: ClassVar[type[Autoencoder]] = LadderAutoencoder
    variables: int = 12

    def _latents(self) -> dict[str, int]:
        return {"latent": self.latent, "variables": self.variables}


_SCENE: dict[str, Any] = {"data": "scene", "images": 50_000, "size": 64, "steps": 100_000}
SAE = Trainable("sae", "images by a structural autoencoder (S004)", SAERecipe, **_SCENE)
ADAAE = Trainable("adaae", "images by an adaptive autoencoder (S004's AdaAE)", AdaAERecipe, **_SCENE)
AE = Trainable("ae", "images by a plain autoencoder (S004's AE)", AERecipe, **_SCENE)
WAE = Trainable("wae", "images by a Wasserstein autoencoder (S004's WAE)", WAERecipe, **_SCENE)
BETAVAE = Trainable("betavae", "images by a VAE or β-VAE on S004's backbone", VariationalRecipe, **_SCENE)
VLAE = Trainable("vlae", "images by a variational ladder autoencoder (S004's VLAE)", VLAERecipe, **_SCENE)
