"""The toy Model 1 of S003: a generator whose modules are known, and whether they are recovered (Prop. 3).

    python examples/toy_model.py --out out/toy

``toy-model.png`` shows where each module acts, influence maps of two of its channels, and the template found for it.
The example then counts for how many of many seeds the partition of the channels is recovered exactly, if the conditions
of Prop. 3 hold and if one of them is violated.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

import counterfactual_probe as cp
from counterfactual_probe.modules.plots import plot_templates
from counterfactual_probe.testing import Model1, random_supports

LAYER = "hidden"


def united(seed: int) -> Model1:
    """The third of three modules acts where the first two do and has no pixel of its own: violates condition (2)."""
    one, two = random_supports(2, seed=seed)
    return Model1(torch.stack([one, two, one | two]), seed=seed)


def scattered(seed: int) -> Model1:
    """Every channel has a place of its own: violates condition (3)."""
    model = Model1.drawn(3, seed=seed)
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for unit, weight in enumerate(model.out):
            weight.normal_(generator=rng).mul_(random_supports(1, seed=1000 * seed + unit)[0])
    return model


def literal() -> cp.ModuleFinder:
    """Prop. 3: binarised maps IM > 0, without smoothing."""
    return cp.ModuleFinder(3, window=1, percentile=0)


def found(
    build: Callable[[int], Model1], finder: Callable[[], cp.ModuleFinder], seeds: Sequence[int], *, pairs: int
) -> int:
    """The number of seeds for which the partition is recovered exactly."""
    count = 0
    for seed in seeds:
        model = build(seed)
        maps = cp.InfluenceMap(model.generator(), LAYER).attribute(n_pairs=pairs, seed=seed)
        count += model.recovered_by(finder().fit(maps).labels_)
    return count


def draw(model: Model1, path: Path) -> None:
    """Plot supports, two influence maps of each module, and templates; one column per module."""
    maps = cp.InfluenceMap(model.generator(), LAYER).attribute(n_pairs=16)
    finder = literal().fit(maps)
    match = cp.parts_agreement(finder, model.supports & (model.supports.sum(0) == 1))
    template = dict(match.pairs[:, ::-1].tolist())
    channels = [np.flatnonzero(model.truth == k) for k in range(3)]
    rows = [
        model.supports.double().numpy(),
        *(maps.maps[[own[place] for own in channels]].double().numpy() for place in range(2)),
        np.stack([finder.templates_[template[k]] for k in range(3)]),
    ]
    figure, ax = plot_templates(np.stack(rows), [f"module {k + 1}" for k in range(3)])
    step = model.supports.shape[1] + 2
    names = ["where it acts", "influence of\none channel", "of another", "template\nfound"]
    ax.set_yticks([step * i + step / 2 - 1.5 for i in range(4)], names)
    figure.savefig(path, bbox_inches="tight", dpi=60)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--out", type=Path, default=Path("out/toy"))
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    draw(Model1.drawn(3, seed=19), options.out / "toy-model.png")
    print(options.out / "toy-model.png")
    seeds = range(options.seeds)

    def papers() -> cp.ModuleFinder:
        return cp.ModuleFinder(3)

    for name, build, finder, pairs in (
        ("Model 1, binarised maps IM > 0", lambda seed: Model1.drawn(3, seed=seed), literal, 1),
        ("Model 1, smoothed and the largest quarter of a map's pixels", lambda s: Model1.drawn(3, seed=s), papers, 64),
        ("a module without a pixel of its own", united, literal, 1),
        ("channels without a common place", scattered, literal, 1),
    ):
        print(f"{name}: {found(build, finder, seeds, pairs=pairs)} of {options.seeds}", flush=True)


if __name__ == "__main__":
    main()
