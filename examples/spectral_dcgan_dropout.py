"""Does dropout change how kernels depend on each other? A DCGAN during training (S002 §4.2, Figs 12, 13).

    python examples/spectral_dcgan_dropout.py
    python examples/spectral_dcgan_dropout.py --data pictures --size 64 --width 128 --images 20000 --steps 20000

Dropout is placed between the two finest layers of the generator. The first command takes some minutes on one CPU.
Started again, it resumes where it stopped, also with more steps. After 40, 80, 160, … steps and at the end the
generator is saved in a folder that ``cp.load`` opens. The example writes histograms of the finest pair of convolutions
over training, all pairs' statistics, samples of the same latents over training, a table, and ``findings.md``: what S002
says and what was measured.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from counterfactual_probe.adapters.dcgan import DCGANGenerator
from counterfactual_probe.adapters.dcgan.recipe import DCGANRecipe
from saving import run, save_figure, save_rows, save_sentences
from spectral_levels import Level, by_chance, levels, margin, rows, titled_once, told
from spectral_sweeps import add_options, trained, training_images
from torch import Tensor, nn
from torch.nn import functional as F

import counterfactual_probe as cp
from counterfactual_probe.base.drawing import PALETTE, plot_images
from counterfactual_probe.base.errors import ProbeError
from counterfactual_probe.base.files import read_bytes, write_bytes
from counterfactual_probe.data.images import to_floats
from counterfactual_probe.spectral.plots import plot_layers

JUDGED = 1024  # images for the distance from the data
COARSE = 8  # their size for it
FILES = ("config.json", "model.safetensors")  # the last file marks a snapshot as complete


class DropoutGenerator(DCGANGenerator):
    """A DCGAN that drops whole channels between its two finest layers, in training only.

    The dropout is kept outside of ``main``, where it would shift the numbers of later layers: so the state dict is that
    of a DCGAN, which ``cp.load`` opens.
    """

    def __init__(self, latent: int, widths: Sequence[int], colours: int, *, rate: float, bias: bool = False) -> None:
        super().__init__(latent, widths, colours, bias=bias)
        self.dropout = nn.Dropout2d(rate)

    def forward(self, z: Tensor) -> Tensor:
        images: Tensor = self.main[-2:](self.dropout(self.main[:-2](z)))
        return images


@dataclass
class DropoutRecipe(DCGANRecipe):
    """A DCGAN whose generator has dropout: each channel is dropped with probability ``dropout``."""

    dropout: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.dropout < 1:
            raise ProbeError(f"dropout is {self.dropout!r}; give a probability from 0 to below 1")

    def networks(self, image: tuple[int, int, int]) -> dict[str, nn.Module]:
        made: dict[str, nn.Module] = super().networks(image)
        kernels = [part for part in made["generator"].modules() if isinstance(part, nn.ConvTranspose2d)]
        widths = [kernel.out_channels for kernel in kernels[:-1]]
        generator = DropoutGenerator(self.latent, widths, image[0], rate=self.dropout)
        # The same initial weights as without dropout.
        generator.load_state_dict(made["generator"].state_dict())
        return made | {"generator": generator}


@dataclass(frozen=True)
class Snapshot:
    """A generator after ``step`` steps."""

    step: int
    levels: list[Level]
    samples: Tensor
    distance: float


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    images = training_images(options)
    found = {}
    for name, dropout in (("no dropout", 0.0), (f"dropout {options.dropout:g}", options.dropout)):
        settings = {"batch": options.batch, "latent": options.latent, "width": options.width, "d_rate": options.d_rate}
        recipe = DropoutRecipe(**settings, dropout=dropout)
        found[name] = list(_training(recipe, images, options.out / name.replace(" ", "-"), options))
    plain, dropped = found.values()
    panels = [[(f"step {shot.step}", shot.levels[0].histogram) for shot in shots] for shots in (plain, dropped)]
    finest = plain[0].levels[0]
    figure, axes = plot_layers(panels, [f"{name}, {'; '.join(finest.pairs)}" for name in found], most=len(plain))
    titled_once(axes)
    save_figure(figure, options.out / "finest.png")
    save_figure(_over_training(found), options.out / "over-training.png")
    save_figure(_sheet(found, options.shown), options.out / "samples.png", photographs=True)
    listed = [_about(shot) | row for name, shots in found.items() for shot in shots for row in rows(name, shot.levels)]
    save_rows(listed, options.out / "table")
    gen = cp.load(options.out / "no-dropout")
    chance = by_chance(gen.module, gen.sample(2), draws=4)
    save_sentences(findings(plain[-1], dropped[-1], chance), options.out / "findings.md")


def _training(recipe: DropoutRecipe, images: Any, folder: Path, options: argparse.Namespace) -> Iterator[Snapshot]:
    """The generator at several steps of one training, which may be interrupted between them."""
    real = _coarse(to_floats(images.pixels[:JUDGED]))
    for step in _steps(options.first, options.steps):
        kept = folder / "snapshots" / f"step-{step:06d}"
        if not (kept / FILES[-1]).exists():
            trained(recipe, images, folder, step, options)
            for name in FILES:
                write_bytes(kept / name, read_bytes(folder / name))
        gen = cp.load(kept)
        samples = gen(gen.sample(JUDGED, seed=options.seed))
        found = levels(cp.SpectralDependency(gen).table())
        yield Snapshot(step, found, samples[: options.shown], frechet(real, _coarse(samples)))


def _steps(first: int, last: int) -> list[int]:
    """first, 2·first, 4·first, … and the last."""
    found = []
    while first < last:
        found.append(first)
        first *= 2
    return [*found, last]


def _coarse(images: Tensor) -> Tensor:
    """Images averaged to a size at which a thousand determine their distribution, one per row."""
    return F.adaptive_avg_pool2d(images, COARSE).flatten(1).double()


def frechet(one: Tensor, two: Tensor) -> float:
    """Squared Fréchet distance of two Gaussians with the rows' means and covariances."""
    first, second = torch.cov(one.T), torch.cov(two.T)
    # The eigenvalues of a product of two covariances are real and, up to rounding, not negative.
    roots = torch.linalg.eigvals(first @ second).real.clamp(min=0).sqrt()
    means = (one.mean(0) - two.mean(0)).square().sum()
    return float(means + first.trace() + second.trace() - 2 * roots.sum())


def _over_training(found: dict[str, list[Snapshot]]) -> Any:
    """Mean, spread and share above 1.45 of every level; solid without dropout, dashed with it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.2), layout="constrained")
    panels = {"mean ratio": "mean", "spread of ratios": "std", "share above 1.45": "above"}
    for ax, (label, what) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        for (name, shots), style in zip(found.items(), ("-", "--"), strict=True):
            for i, level in enumerate(shots[0].levels):
                values = [getattr(shot.levels[i], what) for shot in shots]
                where = [shot.step for shot in shots]
                ax.plot(where, values, style, color=PALETTE[i], label=f"{level.name}, {name}", marker=".")
        ax.set_xscale("log")
        ax.set_xlabel("training step")
        ax.set_ylabel(label)
    figure.legend(*ax.get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize="small")
    return figure


def _sheet(found: dict[str, list[Snapshot]], shown: int) -> Any:
    """The same latents without and with dropout, one below the other, over training."""
    pictures, labels = [], []
    for shots in zip(*found.values(), strict=True):
        for name, shot in zip(found, shots, strict=True):
            pictures.append(shot.samples[:shown])
            labels.append(f"step {shot.step}\n{name}")
    return plot_images(torch.stack(pictures).numpy(), labels)[0]


def _about(shot: Snapshot) -> dict[str, Any]:
    return {"step": shot.step, "distance": shot.distance}


def findings(plain: Snapshot, dropped: Snapshot, chance: Sequence[Sequence[Level]]) -> list[str]:
    """S002's claims of §4.2, and whether the numbers at the end support them."""
    one, two = plain.levels[0], dropped.levels[0]
    more = told(two.deviation - one.deviation, margin(one, chance))
    return [
        f"“Dropout increases the dependency between these layers” {more}. After {plain.step} steps their ratios are "
        f"{one.mean:.3f} ± {one.std:.3f} without and {two.mean:.3f} ± {two.std:.3f} with dropout, with root mean "
        f"squares of {one.deviation:.3f} and {two.deviation:.3f} around 1 ({'; '.join(one.pairs)}).",
        f"“Especially positive correlation” {told(two.above - one.above)}. {one.above:.3f} of the ratios are above "
        f"1.45 without and {two.above:.3f} with dropout, {one.below:.3f} and {two.below:.3f} below 0.9.",
        f"“A strongly deteriorated performance”: that samples are worse {told(dropped.distance - plain.distance)}. The "
        f"Fréchet distance of their pixels, averaged to {COARSE}×{COARSE}, from the data's is {plain.distance:.2f} "
        f"without and {dropped.distance:.2f} with dropout.",
    ]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, out="out/spectral-dropout", images=4000, steps=1280)
    parser.add_argument("--dropout", type=float, default=0.5, help="probability of dropping a channel (%(default)s)")
    parser.add_argument(
        "--d-rate", type=float, default=0.5, help="learning rate of the discriminator, relative to the generator's"
    )
    parser.add_argument("--first", type=int, default=40, help="steps before the first snapshot (%(default)s)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run(main)
