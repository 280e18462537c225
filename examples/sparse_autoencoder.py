"""Features of a sparse autoencoder of the overcomplete package as units: where in the image each acts.

    pip install --no-deps overcomplete==0.3.0 einops
    python examples/sparse_autoencoder.py                  some minutes on two cores, into out/sparse-autoencoder
    python examples/sparse_autoencoder.py --features 64 --samples 100 --pairs 8

The autoencoder (TopKSAE) is trained on activations of the face generator; each position is a mix of few of its
features. Writes its weights, two figures and the findings.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import torch
from saving import run, save_figure, save_sentences
from torch import Tensor, nn

import counterfactual_probe as cp

LAYER = "main.8"
ROWS = 1024  # of a batch


def autoencoders() -> Any:
    """The package's ``sae``, without the package itself.

    Importing ``overcomplete`` also imports its pictures, which need OpenCV, scikit-image and a matplotlib before 3.9:
    later ones have no ``cm.get_cmap``. Its autoencoders need none of these.
    """
    if "overcomplete" not in sys.modules:
        found = importlib.util.find_spec("overcomplete")
        if found is None:
            raise cp.ProbeError("overcomplete is missing; install it with: pip install --no-deps overcomplete einops")
        sys.modules["overcomplete"] = importlib.util.module_from_spec(found)  # its folder, and nothing run
    return importlib.import_module("overcomplete.sae")


def activations(gen: cp.GeneratorAdapter, layer: str, samples: int) -> Tensor:
    """(samples · positions, channels) what a layer of images gives, as rows."""
    seen: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        seen.append(output.movedim(1, -1).reshape(-1, output.shape[1]))

    with gen.module.get_submodule(layer).register_forward_hook(keep):
        for start in range(0, samples, 64):
            gen(gen.sample(min(64, samples - start), seed=0, start=start))
    return torch.cat(seen).float()


def trained(rows: Tensor, features: int, at_once: int, epochs: int) -> nn.Module:
    """A sparse autoencoder of these rows, by the package's own loop."""
    sae = autoencoders()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: nn.Module = sae.TopKSAE(rows.shape[1], features, top_k=at_once)
        batches = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(rows), ROWS, shuffle=True)
        optimiser = torch.optim.Adam(model.parameters(), 3e-3)

        def loss(x: Tensor, x_hat: Tensor, *_: Tensor) -> Tensor:
            return (x - x_hat).square().mean()

        sae.train_sae(model, batches, loss, optimiser, nb_epochs=epochs, monitoring=0)
    return model


def explained(rows: Tensor, basis: cp.bases.Dictionary) -> tuple[float, Tensor]:
    """The share of the rows' variance that decoding their codes gives, and (features,) how often each is used."""
    codes = basis.encode(rows)
    rest = (basis.decode(codes) - rows).square().sum()
    return 1 - float(rest / (rows - rows.mean(0)).square().sum()), (codes != 0).float().mean(0)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=int, default=256)
    parser.add_argument("--at-once", type=int, default=16, help="features of a position")
    parser.add_argument("--samples", type=int, default=500, help="latents that the autoencoder is trained on")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--out", type=Path, default=Path("out/sparse-autoencoder"))
    args = parser.parse_args(arguments)
    gen = cp.load("dcgan-faces")
    rows = activations(gen, LAYER, args.samples)
    basis = cp.bases.Dictionary(trained(rows, args.features, args.at_once, args.epochs)).of(gen, LAYER)
    share, used = explained(rows, basis)
    maps = cp.InfluenceMap(gen, LAYER, features=basis).attribute(n_pairs=args.pairs)

    args.out.mkdir(parents=True, exist_ok=True)
    print(basis.save(args.out / "features.safetensors"))
    save_figure(maps.plot(most=16)[0], args.out / "features.png")
    z1, z2 = gen.sample(8, seed=4), gen.sample(8, seed=5)
    sets = [*([unit] for unit in maps.strongest[:3]), range(len(maps))]
    hybrids = cp.Hybridizer(gen, LAYER, features=basis).hybridize(z1, z2, units=sets)
    save_figure(hybrids.plot()[0], args.out / "hybrids.png", photographs=True)
    ten = maps.influence[maps.strongest[:10]].sum() / maps.influence.sum()
    everything = [*hybrids.records()][-1]
    save_sentences(
        [
            f"{args.features} features of {LAYER}, {args.at_once} at each position, explain {share:.0%} of the "
            f"variance of {len(rows):,} positions; {int((used == 0).sum())} are never used.",
            f"The ten strongest account for {float(ten):.0%} of the features' influence.",
            f"With all features swapped, hybrids are {everything['distance to source']:.3f} from their sources (mean "
            f"|difference| of pixels) and {everything['distance to base']:.3f} from their bases; what the features do "
            "not explain stays the base's.",
        ],
        args.out / "findings.md",
    )


if __name__ == "__main__":
    run(main)
