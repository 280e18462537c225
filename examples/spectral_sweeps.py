"""Common code of S002's sweeps: options, and trainings that can be resumed.

Started again, a sweep trains only what has not been trained yet.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import counterfactual_probe as cp
from counterfactual_probe.data import Images, open_images
from counterfactual_probe.training import Recipe


def add_options(parser: argparse.ArgumentParser, *, out: str, images: int, steps: int) -> None:
    """Options of data and training."""
    parser.add_argument("--out", type=Path, default=Path(out), help="folder for everything (%(default)s)")
    parser.add_argument("--data", default="generator:dcgan-faces", help="as for the command train (%(default)s)")
    parser.add_argument("--images", type=int, default=images, help="maximum number of training images (%(default)s)")
    parser.add_argument("--size", type=int, default=32, help="side of the images (%(default)s)")
    parser.add_argument("--cache", type=Path, help="file for decoded images (by default in the folder)")
    parser.add_argument("--steps", type=int, default=steps, help="steps of each training (%(default)s)")
    parser.add_argument("--skip-unreadable", action="store_true", help="leave out pictures that cannot be decoded")
    parser.add_argument("--batch", type=int, default=64, help="images per step (%(default)s)")
    parser.add_argument("--width", type=int, default=64, help="channels of the widest layer (%(default)s)")
    parser.add_argument("--latent", type=int, default=128, help="dimensions of the latent (%(default)s)")
    parser.add_argument("--precision", choices=["float32", "bf16"], default="bf16", help="(%(default)s)")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="by default a GPU if there is one")
    parser.add_argument("--shown", type=int, default=8, help="sample pictures per model (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)


def training_images(options: argparse.Namespace) -> Images:
    """The data, decoded once for all trainings and for further runs of the sweep."""
    return open_images(
        options.data,
        size=options.size,
        images=options.images,
        seed=options.seed,
        cache=options.cache or options.out / "images.safetensors",
        skip_unreadable=options.skip_unreadable,
        show_progress=True,
    )


def trained(recipe: Recipe, images: Images, folder: Path, steps: int, options: argparse.Namespace) -> Any:
    """Train for ``steps`` steps, or resume up to them."""
    return cp.train(
        recipe, images, out=folder, steps=steps, seed=options.seed, precision=options.precision,
        device=options.device, resume=True, show_progress=True,
    )  # fmt: skip
