"""Steps per second of ``train`` and of a bare loop on the same model, taking turns: the ratio should be at least 0.9.

    python benchmarks/training.py                 vae-faces, as it ships
    python benchmarks/training.py --size 16 --width 16 --batch 16     a model so small that overheads show
    python benchmarks/training.py --model sae --size 32 --width 16    a structural autoencoder; or ae, betavae, …

The bare loop has its images as floats in memory, and does only what is necessary: forward, backward, Adam. ``train``
also converts bytes, logs losses and gradients, draws grids and writes checkpoints. Set-up is in neither time, but the
last checkpoint and grid are, so that rounds of a second or two are not informative.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
from counterfactual_probe.adapters.autoencoder.recipe import AERecipe, VariationalRecipe
from counterfactual_probe.adapters.vae.recipe import VAERecipe
from throughput import machine
from torch import Tensor, nn
from torch.nn import functional as F

import counterfactual_probe as cp
from counterfactual_probe.data import Images
from counterfactual_probe.training import Recipe, trainable


def vae_loss(recipe: VAERecipe, encoder: nn.Module, decoder: nn.Module, images: Tensor) -> Tensor:
    """The VAE's loss, written by hand."""
    mean, log_variance = encoder(images)
    made = decoder(mean + (log_variance / 2).exp() * torch.randn_like(mean))
    kl = (mean.square() + log_variance.exp() - log_variance - 1).sum(1).mean() / 2
    error: Tensor = (made - images).square().mean() + recipe.beta * kl
    return error


def autoencoder_loss(recipe: AERecipe, encoder: nn.Module, decoder: nn.Module, images: Tensor) -> Tensor:
    """The losses of S004's models without a penalty and of its VAEs, written by hand."""
    images = (images + 1) / 2
    codes, kl = encoder(images), images.new_zeros(())
    if isinstance(recipe, VariationalRecipe):
        mean, log_deviation = codes.chunk(2, 1)
        codes = mean + log_deviation.exp() * torch.randn_like(mean)
        kl = (mean.square() + (2 * log_deviation).exp() - 2 * log_deviation - 1).sum(1).mean() / 2
    logits = decoder(codes, logits=True)
    entropy = F.binary_cross_entropy_with_logits(logits, images, reduction="sum") / len(images)
    return entropy + getattr(recipe, "beta", 0.0) * kl


def bare(recipe: Recipe, pixels: Tensor, steps: int) -> float:
    """Steps per second of a hand-written loop."""
    device = pixels.device
    networks = recipe.networks((3, pixels.shape[2], pixels.shape[3]))
    encoder, decoder = networks["encoder"].to(device), networks["decoder"].to(device)
    parameters = itertools.chain(encoder.parameters(), decoder.parameters())
    # train uses the fused Adam, and a hand-written loop the default.
    optimiser = torch.optim.Adam(parameters, recipe.lr)
    order = torch.randperm(len(pixels), device=device)
    batches = len(pixels) // recipe.batch
    _wait(device)
    start = time.perf_counter()
    for number in range(steps):
        position = number % batches * recipe.batch
        images = pixels[order[position : position + recipe.batch]]
        if isinstance(recipe, AERecipe):
            loss: Tensor = autoencoder_loss(recipe, encoder, decoder, images)
        elif isinstance(recipe, VAERecipe):
            loss = vae_loss(recipe, encoder, decoder, images)
        else:
            raise SystemExit(
                f"no bare loop is written for {type(recipe).__name__}; give a model of vae or autoencoders"
            )
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    _wait(device)
    return steps / (time.perf_counter() - start)


def ours(recipe: Recipe, images: Images, steps: int) -> float:
    """Steps per second of ``train``, everything but the set-up included."""
    with tempfile.TemporaryDirectory() as folder:
        return cp.train(recipe, images, out=Path(folder), steps=steps).steps_per_second


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vae", help="its name in train (%(default)s)")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--steps", type=int, default=60, help="steps per round (default 60)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="torch's threads; by default torch's own choice")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rng = torch.Generator().manual_seed(0)
    shape = (args.images, 3, args.size, args.size)
    images = Images(torch.randint(256, shape, dtype=torch.uint8, generator=rng), "noise")
    pixels = images.floats(torch.arange(args.images)).to(device)
    recipe = trainable(args.model).make({"width": args.width, "batch": args.batch})
    bare(recipe, pixels, 5)
    ours(recipe, images, 5)
    rates = [(bare(recipe, pixels, args.steps), ours(recipe, images, args.steps)) for _ in range(args.rounds)]
    ratios = sorted(own / plain for plain, own in rates)
    print(f"bare loop  {median(plain for plain, _ in rates):8.2f} steps per second")
    print(f"train      {median(own for _, own in rates):8.2f}")
    print(f"ratio      {median(ratios):8.2f}   {ratios[0]:.2f}–{ratios[-1]:.2f}")
    found = machine(device)
    print(f"{found['processor']}, {found['threads']} threads, {found['device']}, torch {found['torch']}")


if __name__ == "__main__":
    main()
