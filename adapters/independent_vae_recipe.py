"""A VAE whose decoder's filters are kept spectrally independent of the maps they read: S000 §5.2."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from counterfactual_probe.spectral import SpectralIndependence
from counterfactual_probe.spectral.loss import Form, require_form
from counterfactual_probe.training import Step, Trainable, Update

from .vae_recipe import VAERecipe


@dataclass
class IndependentVAERecipe(VAERecipe):
    """A β-VAE that alternates its own loss with the independence of the decoder's filters (S000 §5.2).

    After each update of the VAE comes one of a single layer's filters alone, by the loss of S000 eq. 9 and with Adam
    moments of its own: the layer nearest to the image first, then the next, and so on in turn.

    Attributes:
        independence: learning rate of the filters' own updates, as a multiple of ``lr``. Adam's steps are as long for a
            large loss as for a small one, so that this and not a weight of the loss is its strength.
        form: of ``cp.spectral_independence_loss``.
        layers: of the decoder, such as "level3.0" and "image.0"; empty for all of its deconvolutions but the coarsest.
    """

    independence: float = 0.1
    form: Form = "printed"
    layers: Sequence[str] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("independence")
        require_form(self.form)

    def optimisers(self, networks: Mapping[str, nn.Module]) -> dict[str, torch.optim.Optimizer]:
        filters = self._watching(networks["decoder"]).filters
        own = torch.optim.Adam(filters, self.lr * self.independence, betas=(0.5, 0.999), fused=True)
        return {**super().optimisers(networks), "filters": own}

    def step(self, step: Step) -> Iterator[Update]:
        # Each rank sees the maps of the whole batch: this loss goes around the wrapper that averages gradients.
        with self._watching(step.networks.plain["decoder"], step) as independence:
            yield from super().step(step)
            losses = {layer: independence.loss(layer) for layer in independence.layers[::-1]}
            turn = list(losses)[step.number % len(losses)]
            yield Update("filters", losses[turn], {f"independence {layer}": loss for layer, loss in losses.items()})

    def _watching(self, decoder: nn.Module, step: Step | None = None) -> SpectralIndependence:
        gather = None if step is None else step.whole
        return SpectralIndependence(decoder, self.layers or None, form=self.form, reduction="mean", gather=gather)


ANY = Trainable("sdrvae", "images by a β-VAE trained for spectral independence (S000)", IndependentVAERecipe)
