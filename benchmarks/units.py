"""What units beyond channels cost: masked swaps, strengths, features and tokens, beside as many channels.

    python benchmarks/units.py                 64 units of dcgan-faces' main.8, 16 pairs; tokens of a transformer
    python benchmarks/units.py --rounds 15

Every swap takes its turn with that of channels in each round, and the median ratio of their times is what matters.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import torch
from throughput import GENERATOR, machine
from torch import Tensor, nn
from torch.nn import functional as F

import counterfactual_probe as cp


class Decoder(nn.Module):
    """A transformer of random weights: 64 tokens of width 64, each decoded to a patch of 4×4 pixels."""

    def __init__(self, tokens: int = 64, width: int = 64, blocks: int = 4) -> None:
        super().__init__()
        self.embed, self.position = nn.Linear(32, tokens * width), nn.Parameter(torch.randn(tokens, width))
        layers = [nn.TransformerEncoderLayer(width, 4, 4 * width, 0.0, batch_first=True) for _ in range(blocks)]
        self.blocks, self.patch = nn.ModuleList(layers), nn.Linear(width, 48)

    def forward(self, z: Tensor) -> Tensor:
        x = self.embed(z).unflatten(1, self.position.shape) + self.position
        for block in self.blocks:
            x = block(x)
        return F.pixel_shuffle(self.patch(x).mT.unflatten(2, (8, 8)), 4)


def transformer() -> cp.GeneratorAdapter:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Decoder().eval()
    return cp.wrap(module, lambda n, rng: torch.randn(n, 32, generator=rng), name="a transformer")


Run = Callable[[], Any]


def of(influence: cp.InfluenceMap, units: int, pairs: int, **options: Any) -> Run:
    z1, z2 = (influence.generator.sample(pairs, seed=seed) for seed in (0, 1))
    return partial(influence.attribute, z1, z2, units=[[unit] for unit in range(units)], **options)


def compared(title: str, channels: Run, others: dict[str, Run], rounds: int) -> None:
    """The median ratio of the time of each to that of channels, run side by side."""
    runs = {"channels": channels, **others}
    made = {name: run() for name, run in runs.items()}  # the warm-up, in which programs are recorded
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    print(title)
    for name, taken in seconds.items():
        ratios = [one / other for one, other in zip(taken, seconds["channels"], strict=True)]
        about = made[name].provenance
        how = f"{about['executor']}{', by difference' if about['first_linear_difference'] else ''}"
        print(f"  {name:24} {median(taken):7.3f} s  {median(ratios):5.2f} of channels  ({how})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=64)
    parser.add_argument("--pairs", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, help="torch's threads; by default torch's own choice")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    gen, layer = cp.load(GENERATOR), "main.8"
    print(machine(gen.device))
    mask = torch.zeros(gen.image_size[1:])
    mask[: len(mask) // 2] = 1
    plain = cp.InfluenceMap(gen, layer)
    make = partial(of, units=args.units, pairs=args.pairs)
    bases: dict[str, Any] = {
        "principal components": cp.bases.PCA(args.units),
        "components of the layer": cp.bases.PCA(args.units, over="layer"),
        "non-negative factors": cp.bases.NMF(args.units),
    }
    features = {
        name: make(cp.InfluenceMap(gen, layer, features=basis.fit(gen, layer, n_samples=200)))
        for name, basis in bases.items()
    }
    others = {"masked": make(plain, where=mask), "half as strong": make(plain, strength=0.5), **features}
    compared(f"{args.units} units of {layer} of {gen.name}, {args.pairs} pairs", make(plain), others, args.rounds)
    tokens = transformer()
    of_tokens: dict[str, Run] = {"tokens": make(cp.InfluenceMap(tokens, "blocks.1", axis="token"))}
    of_tokens["masked"] = make(cp.InfluenceMap(tokens, "blocks.1"), where=torch.ones(64))
    title = f"{args.units} units of blocks.1 of {tokens.name}, {args.pairs} pairs"
    compared(title, make(cp.InfluenceMap(tokens, "blocks.1")), of_tokens, args.rounds)


if __name__ == "__main__":
    main()
