"""A VAE whose decoder's filters are trained to be spectrally independent of their input maps: S000 §5.2."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from counterfactual_probe.spectral import SpectralIndependence
from counterfactual_probe.spectral.loss import Form, require_form
from counterfactual_probe.training import Step, Trainable, Update

from .recipe import VAERecipe


@dataclass
class IndependentVAERecipe(VAERecipe):
    """A β-VAE that alternates its own loss with a loss for independent filters of the decoder (S000 §5.2).

    Each update of the VAE is followed by an update of the filters of one layer, by the loss of S000 eq. 9 and with a
    separate Adam. Layers take turns, starting nearest to the image.

    Attributes:
        independence: learning rate of these updates, as a multiple of ``lr``. It sets their strength; a weight of the
            loss would have no effect, since Adam's steps do not depend on the loss's scale.
        form: the form of ``cp.spectral_independence_loss``.
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
        optimiser = torch.optim.Adam(filters, self.lr * self.independence, betas=(0.5, 0.999), fused=True)
        return {**super().optimisers(networks), "filters": optimiser}

    def step(self, step: Step) -> Iterator[Update]:
        # This loss bypasses the wrapper that averages gradients, so each rank needs the maps of the whole batch.
        with self._watching(step.networks.plain["decoder"], step) as independence:
            yield from super().step(step)
            losses = {layer: independence.loss(layer) for layer in independence.layers[::-1]}
            turn = list(losses)[step.number % len(losses)]
            yield Update("filters", losses[turn], {f"independence {layer}": loss for layer, loss in losses.items()})

    def _watching(self, decoder: nn.Module, step: Step | None = None) -> SpectralIndependence:
        gather = None if step is None else step.whole
        return SpectralIndependence(decoder, self.layers or None, form=self.form, reduction="mean", gather=gather)


ANY = Trainable("sdrvae", "images by a β-VAE trained for spectral independence (S000)", IndependentVAERecipe)
