"""Does training for spectral independence keep a VAE modular for longer (S000 §5.1.2 and 5.2, Figs 3 and 4)?

    python examples/spectral_training.py
    python examples/spectral_training.py --data cifar10-images.zip/train --out out/training-cifar10
    python examples/spectral_training.py --size 64 --width 64 --images 20000 --batch 64 --steps 50000 --out out/large

A VAE is trained without and with updates of its decoder's filters for independence, from the same weights and on the
same batches, once for each seed. At evaluations, whose steps grow by a factor of √2, the maps of one layer are
stretched, and the resulting image is compared with the stretched image, scale by scale. Started again, the same command
resumes where it stopped, also with more steps or seeds. The generator at each evaluation is saved in a folder that
``cp.load`` opens. The example writes the errors over training (Fig. 4), stretched pictures of the last evaluation (Fig.
3), a table, and ``findings.md``: what S000 says and what was measured.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from counterfactual_probe.adapters.vae.independent_recipe import IndependentVAERecipe
from counterfactual_probe.adapters.vae.recipe import VAERecipe
from saving import run, save_figure, save_rows, save_sentences
from spectral_courses import Course, Look, findings, over_training, pictures, rows
from spectral_sweeps import add_options, trained, training_images

import counterfactual_probe as cp
from counterfactual_probe.base.errors import whole
from counterfactual_probe.base.files import read_bytes, write_bytes
from counterfactual_probe.data import Images
from counterfactual_probe.training import Recipe

FILES = ("config.json", "model.safetensors")  # the last file marks a snapshot as complete
LAST = 100  # steps over which the squared error is averaged


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    images = training_images(options)
    courses = {
        name: [Course(seed, list(_looks(recipe, images, name, seed, options))) for seed in _seeds(options)]
        for name, recipe in _recipes(options).items()
    }
    save_figure(over_training(courses), options.out / "over-training.png")
    save_figure(pictures(courses, options.shown), options.out / "stretched.png", photographs=True)
    save_rows(rows(courses), options.out / "table")
    save_sentences(findings(courses), options.out / "findings.md")


def _recipes(options: argparse.Namespace) -> dict[str, Recipe]:
    settings = {"batch": options.batch, "latent": options.latent, "width": options.width, "beta": options.beta}
    own = {"independence": options.independence, "form": options.form, "layers": options.filters}
    return {"without": VAERecipe(**settings), "with": IndependentVAERecipe(**settings, **own)}


def _seeds(options: argparse.Namespace) -> range:
    return range(options.seed, options.seed + whole(options.seeds, "seeds", 1))


def _looks(recipe: Recipe, images: Images, name: str, seed: int, options: argparse.Namespace) -> Iterator[Look]:
    """Evaluations of one training, which may be interrupted between them."""
    folder = options.out / f"{name}-{seed}"
    leg = argparse.Namespace(**{**vars(options), "seed": seed})
    for step in steps(options.first, options.steps):
        kept = folder / "looks" / f"step-{step:06d}"
        if not (kept / FILES[-1]).exists():
            done = trained(recipe, images, folder, step, leg)
            error = float(np.mean(done.losses["reconstruction"][-LAST:]))
            write_bytes(kept / "reconstruction.txt", f"{error!r}\n".encode())
            for file in FILES:
                write_bytes(kept / file, read_bytes(folder / file))
        yield look(kept, step, options)


def steps(first: int, last: int) -> list[int]:
    """Steps of the evaluations from first to last, two for each doubling."""
    found, number = {last}, 0
    while (step := round(first * 2 ** (number / 2))) < last:
        found.add(step)
        number += 1
    return sorted(found)


def look(folder: Path, step: int, options: argparse.Namespace) -> Look:
    """The errors of one stretched layer, and the ratios of filters and the maps they read."""
    gen = cp.load(folder)
    latents = gen.sample(options.latents, seed=options.seed)  # the same for all evaluations and trainings
    layer = options.layer or _fine(gen)
    sd = cp.SpectralDependency(gen)
    ratios = {name: sd.measure_activations(name, latents).ratio for name in list(gen.layers)[1:]}
    return Look(
        step,
        cp.StretchTest(gen, layer).measure(latents, keep=options.shown),
        {name: ratio[~ratio.isnan()].numpy() for name, ratio in ratios.items()},
        float(read_bytes(folder / "reconstruction.txt")),
    )


def _fine(gen: cp.GeneratorAdapter) -> str:
    """S000's fine level: maps of half the image's side."""
    half = gen.image_size[1] // 2
    return [name for name, info in gen.layers.items() if info.size[-1] == half][-1]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, out="out/spectral-training", images=8000, steps=3200)
    parser.set_defaults(batch=32, width=32)
    parser.add_argument("--beta", type=float, default=0.0005, help="weight of the KL (%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="number of trainings of each kind (%(default)s)")
    parser.add_argument("--first", type=int, default=100, help="step of the first evaluation (%(default)s)")
    parser.add_argument(
        "--independence", type=float, default=0.1, help="learning rate of its updates, relative to the VAE's"
    )
    parser.add_argument("--form", choices=["printed", "bartlett", "scalar"], default="printed", help="form of its loss")
    parser.add_argument("--filters", nargs="+", default=[], help="deconvolutions of the decoder (all but the coarsest)")
    parser.add_argument("--layer", help="layer to stretch; by default the one with maps of half the image's side")
    parser.add_argument("--latents", type=int, default=64, help="number of images for the errors (%(default)s)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run(main)
