"""GANSpace's components of the face generator against its modules: do they act in the same places, and come back?

    python examples/ganspace_components.py                     a few minutes on two cores, into out/ganspace
    python examples/ganspace_components.py --pairs 32 --samples 300 --components 16

A component (Härkönen et al. 2020) is a principal direction of a layer's activation; a module is a set of channels.
Both are units, so both have influence maps and modules. Writes three figures and the findings.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from saving import run, save_figure, save_sentences
from scipy.optimize import linear_sum_assignment
from torch import Tensor

import counterfactual_probe as cp
from counterfactual_probe.modules.confidence import ExpectedDisagreement

LAYER = "main.8"


def overlap(components: Tensor, templates: Any) -> Tensor:
    """(components, modules) the share of each component's influence in the quarter of the image where a module acts."""
    flat = torch.from_numpy(np.ascontiguousarray(templates)).flatten(1)
    inside = (flat > flat.quantile(0.75, dim=1, keepdim=True)).float()
    maps = components.flatten(1)
    shares: Tensor = maps @ inside.T / maps.sum(1, keepdim=True)
    return shares


def returning(one: Tensor, two: Tensor) -> Tensor:
    """For each direction of one sample of latents, |cosine| with the most similar one of another sample."""
    first, second = (
        directions.flatten(1) / directions.flatten(1).norm(dim=1, keepdim=True) for directions in (one, two)
    )
    best: Tensor = (first @ second.T).abs().amax(1)
    return best


def matched(one: Any, two: Any) -> list[float]:
    """Cosines of the templates of two partitions, matched one to one."""
    first, second = (
        templates.reshape(len(templates), -1) / np.linalg.norm(templates.reshape(len(templates), -1), axis=1)[:, None]
        for templates in (one, two)
    )
    cosines = first @ second.T
    return [float(cosines[pair]) for pair in zip(*linear_sum_assignment(-cosines), strict=True)]


def modules(maps: cp.InfluenceMaps) -> cp.ModuleFinder:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExpectedDisagreement)
        finder = cp.ModuleFinder(3, features="l2").fit(maps)
        finder.confidence_  # noqa: B018 (computed on first access)
    return finder


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--components", type=int, default=32)
    parser.add_argument("--samples", type=int, default=1000, help="latents that components are fitted on")
    parser.add_argument("--pairs", type=int, default=128)
    parser.add_argument("--out", type=Path, default=Path("out/ganspace"))
    args = parser.parse_args(arguments)
    gen = cp.load("dcgan-faces")
    fitted = [
        cp.bases.PCA(args.components, over="layer").fit(gen, LAYER, n_samples=args.samples, seed=seed)
        for seed in (0, 1)
    ]
    ways = {"channels": cp.InfluenceMap(gen, LAYER), "components": cp.InfluenceMap(gen, LAYER, features=fitted[0])}
    blocks = min(32, args.pairs // 2)
    maps = {
        name: influence.attribute(n_pairs=args.pairs, blocks=blocks, normalise="pair")
        for name, influence in ways.items()
    }
    found = {name: modules(one) for name, one in maps.items()}
    shares = overlap(maps["components"].maps, found["channels"].templates_)
    back = returning(fitted[0].directions, fitted[1].directions)
    cosines = matched(found["channels"].templates_, found["components"].templates_)

    args.out.mkdir(parents=True, exist_ok=True)
    save_figure(maps["components"].plot(most=16)[0], args.out / "components.png")
    save_figure(found["components"].plot()[0], args.out / "groups.png")
    z1, z2 = gen.sample(8, seed=4), gen.sample(8, seed=5)
    strongest = [[unit] for unit in maps["components"].strongest[:3]]
    hybrids = cp.Hybridizer(gen, LAYER, features=fitted[0]).hybridize(z1, z2, units=[*strongest, range(len(back))])
    save_figure(hybrids.plot()[0], args.out / "hybrids.png", photographs=True)
    explained, n = fitted[0].provenance["explained"], args.components
    ari = {name: finder.expected_ari_ for name, finder in found.items()}
    most = shares.amax(1)
    save_sentences(
        [
            f"{n} components of {LAYER}, fitted on {args.samples} latents, explain {explained:.0%} of its variance.",
            f"In the quarter of the image where its best-fitting module acts, a component has "
            f"{float(most.median()):.0%} of its influence (median), from {float(most.min()):.0%} to "
            f"{float(most.max()):.0%}.",
            f"Modules of components and modules of channels have templates of cosine "
            f"{', '.join(f'{value:.2f}' for value in cosines)}.",
            f"Fitted on other latents, {int((back > 0.9).sum())} of {n} components come back "
            f"with |cosine| above 0.9 (median {float(back.median()):.2f}).",
            f"Modules of channels come back with an expected adjusted Rand index of {ari['channels']:.2f}, modules of "
            f"components with {ari['components']:.2f}, both of {args.pairs} pairs.",
        ],
        args.out / "findings.md",
    )


if __name__ == "__main__":
    run(main)
