"""S002 §2.3.2, Fig. 3b: where the ratio from cause to effect is about 1, is that from effect to cause below 1?"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

import counterfactual_probe as cp

from ..row import Line, Numbers, Row, Study
from ..sampled import HOLDS, Sampled, verdict

SEEDS, PATHWAYS = 5, 2000
GRID = 64
NEAR = 0.1  # of 1
PAIRS = {
    "vae-faces": ("decoder.level3.0", "decoder.level4.0"),
    "dcgan-faces-small": ("main.6", "main.9"),
    "vae-cifar10": ("decoder.level2.0", "decoder.level3.0"),
}

Floats = npt.NDArray[np.float64]


def both_ways(coarse: Floats, fine: Floats) -> tuple[Floats, Floats]:
    """Ratios from the coarse kernel to the fine one, and back from the effect through the inverse of the fine one.

    With S_y = S_x |ĥ|² the second is ⟨S_x⟩ / (⟨S_x |ĥ|²⟩ ⟨1 / |ĥ|²⟩). Where ĥ has a zero it is 0; on a grid it is
    some small number.
    """
    x = np.abs(np.fft.fft2(coarse, (GRID, GRID))) ** 2
    doubled = 2 * np.arange(GRID) % GRID  # stride 2: the coarse kernel has the compressed frequencies
    x = x[:, doubled][:, :, doubled]
    h = np.abs(np.fft.fft2(fine, (GRID, GRID))) ** 2
    there = (x * h).mean((1, 2)) / (x.mean((1, 2)) * h.mean((1, 2)))
    with np.errstate(divide="ignore"):  # a zero on the grid: the ratio is 0
        back = x.mean((1, 2)) / ((x * h).mean((1, 2)) * (1 / h).mean((1, 2)))
    return there, back


def measure() -> Numbers:
    found: Numbers = {"seeds": list(range(SEEDS)), "pathways": PATHWAYS, "networks": {}}
    for name, pair in PAIRS.items():
        gen = cp.load(name)
        first, second = (_kernels(gen, layer) for layer in pair)
        exact = cp.SpectralDependency(gen).measure(*pair).ratio
        rows = []
        for seed in range(SEEDS):
            rng = np.random.default_rng(seed)
            i, m, o = (rng.integers(size, size=PATHWAYS) for size in exact.shape)
            there, back = both_ways(first[i, m], second[m, o])
            near = np.abs(there - 1) <= NEAR
            rows.append({
                "difference": float(np.abs(there - exact[i, m, o].numpy()).max()),
                "below": float((back < 1).mean()),
                "near_below": float((back[near] < 1).mean()),
                "near_back": float(back[near].mean()),
                "closer": float((np.abs(there - 1) < np.abs(back - 1)).mean()),
                "product": float((there * back).max()),
                "random_closer": _random_closer(first.shape[2:], second.shape[2:], seed),
            })  # fmt: skip
        found["networks"][name] = {"layers": list(pair), "seeds": rows}
    return found


def _random_closer(first: tuple[int, ...], second: tuple[int, ...], seed: int) -> float:
    """The share of pathways of random kernels of these sizes whose ratio is closer to 1 than the reverse one."""
    rng = np.random.default_rng([seed, 1])
    there, back = both_ways(rng.normal(size=(PATHWAYS, *first)), rng.normal(size=(PATHWAYS, *second)))
    return float((np.abs(there - 1) < np.abs(back - 1)).mean())


def _kernels(gen: cp.GeneratorAdapter, layer: str) -> Floats:
    convolution = gen.module.get_submodule(layer)
    assert isinstance(convolution, nn.ConvTranspose2d)
    return np.asarray(convolution.weight.detach().to(torch.float64).numpy())


def below(numbers: Numbers) -> list[Line]:
    said, share, product = [], [], []
    for name, one in numbers["networks"].items():
        rows = one["seeds"]
        share += [row["near_below"] for row in rows]
        product += [row["product"] for row in rows]
        said.append(f"`{name}` {Sampled.of(row['near_back'] for row in rows):.3f}")
    text = (
        f"of pathways whose ratio is within {NEAR} of 1, {100 * min(share):.0f} % have a reverse ratio below 1, with "
        f"means {', '.join(said)}. It cannot be otherwise: the product of both is 1 / (⟨|ĥ|²⟩⟨1/|ĥ|²⟩), never above 1 "
        f"(the largest seen is {max(product):.3f}), whether kernels are independent or not"
    )
    repeats = f"{len(numbers['seeds'])} samples of {numbers['pathways']} pathways"
    names = ", ".join(f"`{name}`" for name in numbers["networks"])
    return [Line(f"two deconvolutions of {names}, {repeats}", HOLDS, text)]


def closer(numbers: Numbers) -> list[Line]:
    signs, said = [], []
    for name, one in numbers["networks"].items():
        share = Sampled.of(row["closer"] for row in one["seeds"])
        signs.append(Sampled(share.mean - 0.5, share.margin, share.n).sign)
        said.append(f"`{name}` {share:.3f}")
    random = Sampled.of(row["random_closer"] for one in numbers["networks"].values() for row in one["seeds"])
    text = (
        f"share of pathways whose ratio is closer to 1 from cause to effect than back: {', '.join(said)}; random "
        f"kernels {random:.3f}, so that it is a property of the two ratios and says nothing about what was learned"
    )
    return [Line("the same", verdict(signs), text)]


STUDY = Study(
    "reverse",
    measure,
    (
        Row("§2.3.2, Fig. 3b: if the ratio ρ(X→Y) is about 1, ρ(Y→X) is below 1", below),
        Row("§2.2: so the causal direction is the one with the ratio closer to 1", closer),
    ),
    repeats=SEEDS,
)
