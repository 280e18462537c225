"""Do ratios distinguish good VAEs from bad ones? A sweep over the last hidden layer's channels and β (S002 §4.3, Figs 7
to 9).

    python examples/spectral_vae_sweep.py
    python examples/spectral_vae_sweep.py --data pictures --size 64 --images 20000 --steps 20000 --out out/large

The first command takes some minutes on one CPU. Started again, it resumes where it stopped. It writes histograms of the
decoders and of the encoders, those of the worst and of the best decoder in S002's order (fewest channels and largest β;
most channels and smallest β), samples, a table, and ``findings.md``: what S002 says and what was measured. β is the
weight of the KL (sum over dimensions); the squared error is a mean over pixels.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from counterfactual_probe.adapters.vae import VAE
from counterfactual_probe.adapters.vae.recipe import VAERecipe, halved
from saving import run, save_figure, save_rows, save_sentences
from spectral_levels import Level, by_chance, levels, margin, rows, superimposed, told
from spectral_sweeps import add_options, trained, training_images
from torch import Tensor, nn

import counterfactual_probe as cp
from counterfactual_probe.base.drawing import plot_images
from counterfactual_probe.base.errors import whole

LAST = 100  # steps over which the losses are averaged
VARIETY = 64  # samples for their standard deviation


@dataclass
class LastHidden(VAERecipe):
    """A β-VAE whose last hidden layer, just before the image, has ``last`` channels."""

    last: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        whole(self.last, "last", 1)

    def networks(self, image: tuple[int, int, int]) -> dict[str, nn.Module]:
        start, widths = halved(self.width, image[1])
        widths = (*widths[:-1], self.last)
        module = VAE(self.latent, widths, image[0], image_size=image[1], start=start, norm=self.norm)
        return {"encoder": module.encoder, "decoder": module.decoder}


@dataclass(frozen=True)
class Swept:
    """One model of the sweep."""

    last: int
    beta: float
    decoder: list[Level]
    encoder: list[Level]
    chance: list[list[Level]]
    samples: Tensor
    reconstruction: float
    kl: float

    @property
    def name(self) -> str:
        return f"{self.last} channels, β = {self.beta:g}"

    @property
    def variety(self) -> float:
        """Standard deviation over samples, averaged over pixels."""
        return float(self.samples.std(0).mean())


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    images = training_images(options)
    found = [_model(last, beta, images, options) for last in options.widths for beta in options.betas]
    names = [model.name for model in found]
    networks: Mapping[str, list[list[Level]]] = {
        "decoder": [model.decoder for model in found],
        "encoder": [model.encoder for model in found],
    }
    for network, all_levels in networks.items():
        save_figure(superimposed(all_levels, names), options.out / f"{network}s.png")
    worst, best = _extremes(found)
    both = superimposed([worst.decoder, best.decoder], [worst.name, best.name])
    save_figure(both, options.out / "worst-best.png")
    sheet = torch.stack([model.samples[: options.shown] for model in found]).numpy()
    save_figure(plot_images(sheet, names)[0], options.out / "samples.png", photographs=True)
    save_rows([row for model in found for row in _rows(model)], options.out / "table")
    save_sentences(findings(worst, best), options.out / "findings.md")


def _model(last: int, beta: float, images: Any, options: argparse.Namespace) -> Swept:
    recipe = LastHidden(beta=beta, latent=options.latent, width=options.width, batch=options.batch, last=last)
    folder = options.out / f"vae-{last}-{beta:g}"
    done = trained(recipe, images, folder, options.steps, options)
    gen = cp.load(folder)
    partner = gen.partner or gen.module  # a VAE always has one
    encoder = cp.SpectralDependency(partner, example=torch.zeros(2, *gen.image_size), name="encoder")
    losses = {name: float(np.mean(values[-LAST:])) for name, values in done.losses.items()}
    return Swept(
        last,
        beta,
        levels(cp.SpectralDependency(gen).table()),
        levels(encoder.table()),
        by_chance(gen.module, gen.sample(2), draws=4),
        gen(gen.sample(max(VARIETY, options.shown), seed=options.seed)),
        losses["reconstruction"],
        losses["kl"],
    )


def _extremes(found: Sequence[Swept]) -> tuple[Swept, Swept]:
    """The worst and the best, in S002's order."""
    ordered = sorted(found, key=lambda model: (model.last, -model.beta))
    return ordered[0], ordered[-1]


def _rows(model: Swept) -> list[dict[str, Any]]:
    about = {"channels": model.last, "beta": model.beta, "reconstruction": model.reconstruction, "kl": model.kl}
    about["variety"] = model.variety
    listed = rows("decoder", model.decoder, model.chance) + rows("encoder", model.encoder)
    return [about | row for row in listed]


def findings(worst: Swept, best: Swept) -> list[str]:
    """S002's claims of §4.3, and whether the numbers support them."""
    pair = f"({worst.name}) and ({best.name})"
    better = best.reconstruction < worst.reconstruction
    coarse, fine = (worst.decoder[-1], best.decoder[-1]), (worst.decoder[0], best.decoder[0])
    closer = told(coarse[0].std - coarse[1].std, margin(coarse[0], worst.chance))
    worse = told(fine[1].std - fine[0].std, margin(fine[0], worst.chance))
    return [
        f"“A smaller β gives more variety” {told(best.variety - worst.variety)}. The standard deviation of samples is "
        f"{worst.variety:.3f} and {best.variety:.3f} for {pair}; the squared error is {worst.reconstruction:.4f} and "
        f"{best.reconstruction:.4f}, so by that the one called best is {'' if better else 'not '}the better one.",
        f"“At the coarsest level ratios are more concentrated in the better model” {closer}. Their spread is "
        f"{coarse[0].std:.3f} and {coarse[1].std:.3f} ({coarse[0].name}; decoders of {pair}).",
        f"“At the finest level they are slightly more concentrated in the worse model” {worse}. Their spread is "
        f"{fine[0].std:.3f} and {fine[1].std:.3f} ({fine[0].name}).",
    ]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, out="out/spectral-vae", images=4000, steps=800)
    parser.add_argument(
        "--widths", type=int, nargs="+", default=[32, 64], help="channels of the last hidden layer (32 64)"
    )
    parser.add_argument("--betas", type=float, nargs="+", default=[0.0005, 0.00005], help="weights of the KL")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run(main)
