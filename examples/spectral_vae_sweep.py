"""Do ratios distinguish good VAEs from bad ones? A sweep over the last hidden layer's channels and β (S002 §4.3, Figs 7
to 9).

    python examples/spectral_vae_sweep.py
    python examples/spectral_vae_sweep.py --seeds 5
    python examples/spectral_vae_sweep.py --data pictures --size 64 --images 20000 --steps 20000 --out out/large

A seed takes two minutes of one core. Started again, the same command resumes where it stopped, also with more seeds. It
writes histograms of the decoders and of the encoders, those of the worst and of the best decoder in S002's order
(fewest channels and largest β; most channels and smallest β), samples, a table, and ``findings.md``: what S002 says and
what was measured, with 95 % intervals over seeds if there are several. Figures show the first seed. β is the weight of
the KL (sum over dimensions); the squared error is a mean over pixels.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from counterfactual_probe.adapters.vae import VAE
from counterfactual_probe.adapters.vae.recipe import VAERecipe, halved
from saving import run, save_figure, save_rows, save_sentences
from spectral_courses import Difference
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
    seed: int
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
    every = [
        _model(last, beta, seed, images, options)
        for seed in range(options.seed, options.seed + whole(options.seeds, "seeds", 1))
        for last in options.widths
        for beta in options.betas
    ]
    found = [model for model in every if model.seed == options.seed]
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
    save_rows([row for model in every for row in _rows(model)], options.out / "table")
    save_sentences(findings(every), options.out / "findings.md")


def _model(last: int, beta: float, seed: int, images: Any, options: argparse.Namespace) -> Swept:
    recipe = LastHidden(beta=beta, latent=options.latent, width=options.width, batch=options.batch, last=last)
    folder = options.out / f"vae-{last}-{beta:g}-{seed}"
    done = trained(recipe, images, folder, options.steps, argparse.Namespace(**{**vars(options), "seed": seed}))
    gen = cp.load(folder)
    partner = gen.partner or gen.module  # a VAE always has one
    encoder = cp.SpectralDependency(partner, example=torch.zeros(2, *gen.image_size), name="encoder")
    losses = {name: float(np.mean(values[-LAST:])) for name, values in done.losses.items()}
    return Swept(
        last,
        beta,
        seed,
        levels(cp.SpectralDependency(gen).table()),
        levels(encoder.table()),
        by_chance(gen.module, gen.sample(2), draws=4),
        gen(gen.sample(max(VARIETY, options.shown), seed=seed)),
        losses["reconstruction"],
        losses["kl"],
    )


def _extremes(found: Sequence[Swept]) -> tuple[Swept, Swept]:
    """The worst and the best, in S002's order."""
    ordered = sorted(found, key=lambda model: (model.last, -model.beta))
    return ordered[0], ordered[-1]


def _rows(model: Swept) -> list[dict[str, Any]]:
    about = {
        "channels": model.last,
        "beta": model.beta,
        "seed": model.seed,
        "reconstruction": model.reconstruction,
        "kl": model.kl,
    }
    about["variety"] = model.variety
    listed = rows("decoder", model.decoder, model.chance) + rows("encoder", model.encoder)
    return [about | row for row in listed]


def findings(every: Sequence[Swept]) -> list[str]:
    """S002's claims of §4.3, and whether the numbers of all seeds support them."""
    seeds = sorted({model.seed for model in every})
    ends = [_extremes([model for model in every if model.seed == seed]) for seed in seeds]
    worst, best = [one for one, _ in ends], [two for _, two in ends]
    pair = f"({worst[0].name}) and ({best[0].name})"
    coarse, fine = (f"{pair} ({_level('decoder', place)(worst[0]).name})" for place in (-1, 0))
    more = "ratios are more concentrated in the better model"
    claims = [
        Claim("a smaller β gives more variety", "The standard deviation of samples", pair, _variety),
        Claim("the better model, in S002's order, has the smaller squared error", "It", pair, _error, sign=-1),
        Claim(f"at the coarsest level the encoder's {more}", "Their spread", coarse, _spread("encoder", -1), sign=-1),
        Claim(f"at the coarsest level the decoder's {more}", "Their spread", coarse, _spread("decoder", -1), sign=-1),
        Claim(
            "at the finest level the decoder's ratios are slightly more concentrated in the worse model",
            "Their spread",
            fine,
            _spread("decoder", 0),
        ),
    ]
    # What random kernels differ by counts where there is one seed alone; it has nothing to do with the first two.
    least = [0.0, 0.0, _least(worst, -1), _least(worst, -1), _least(worst, 0)]
    return [claim.told(worst, best, bar) for claim, bar in zip(claims, least, strict=True)]


@dataclass(frozen=True)
class Claim:
    """A value that S002 says is larger in the best model than in the worst, or smaller for ``sign`` −1."""

    claim: str
    what: str
    models: str
    value: Callable[[Swept], float]
    sign: int = 1

    def told(self, worst: Sequence[Swept], best: Sequence[Swept], least: float) -> str:
        """Whether it is so: by the 95 % interval over seeds, or, of one seed, by what random kernels differ by."""
        one, two = (np.array([self.value(model) for model in models]) for models in (worst, best))
        difference = Difference(self.sign * (two - one))
        verdict = difference.told if len(one) > 1 else told(difference.mean, least)
        seeds = "one seed"
        if len(one) > 1:
            seeds = f"the difference {(two - one).mean():.4f} ± {difference.half:.4f} over {len(one)} seeds"
        values = f"{one.mean():.4f} and {two.mean():.4f} for {self.models}"
        return f"“{self.claim}” {verdict}. {self.what} is {values}, {seeds}."


def _variety(model: Swept) -> float:
    return model.variety


def _error(model: Swept) -> float:
    return model.reconstruction


def _level(part: str, place: int) -> Callable[[Swept], Level]:
    def level(model: Swept) -> Level:
        found: Level = getattr(model, part)[place]
        return found

    return level


def _spread(part: str, place: int) -> Callable[[Swept], float]:
    level = _level(part, place)
    return lambda model: level(model).std


def _least(models: Sequence[Swept], place: int) -> float:
    return max(margin(model.decoder[place], model.chance) for model in models)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, out="out/spectral-vae", images=4000, steps=800)
    parser.add_argument(
        "--widths", type=int, nargs="+", default=[32, 64], help="channels of the last hidden layer (32 64)"
    )
    parser.add_argument("--seeds", type=int, default=1, help="number of trainings of each model (%(default)s)")
    parser.add_argument("--betas", type=float, nargs="+", default=[0.0005, 0.00005], help="weights of the KL")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run(main)
