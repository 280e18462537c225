"""S003 Def. 2 and 4: are hybrids by modules images that the generator can make, and do modules act apart?"""

from __future__ import annotations

import numpy as np

import counterfactual_probe as cp

from ..row import Line, Numbers, Row, Study
from ..sampled import Sampled, verdict

SEEDS, PAIRS, LATER, IMAGES, STEPS, CONTROLS = 5, 64, 16, 6, 50, 5
GENERATOR, LAYER, MODULES = "vae-cifar10", "decoder.level2", 3
OTHERS = ("other samples", "mixed latents", "random sets", "collages")  # the other groups are the modules


def measure() -> Numbers:
    """For every sample of pairs: how near images of each kind are to own ones, and how modules interact."""
    gen = cp.load(GENERATOR)
    rows = []
    for seed in range(SEEDS):
        maps = cp.InfluenceMap(gen, LAYER).attribute(n_pairs=PAIRS, normalise="pair", seed=seed)
        finder = cp.ModuleFinder(MODULES, features="l2", seed=seed).fit(maps)
        found = cp.exchange(gen, finder, n_pairs=LATER, images=IMAGES, steps=STEPS, controls=CONTROLS, seed=seed + 1000)
        assert found.groups is not None
        assert found.faithfulness is not None
        named = dict(zip(found.groups, found.faithfulness.mean(1).tolist(), strict=True))
        apart = ~np.eye(MODULES, dtype=bool)
        rows.append({
            "faithfulness": {name: named[name] for name in OTHERS}
            | {"hybrids": float(np.mean([value for name, value in named.items() if name not in OTHERS]))},
            "interaction": float(found.interaction[apart].mean()),
            "random_interaction": float(found.random_interaction[..., apart].mean()),
        })  # fmt: skip
    about = {"pairs": PAIRS, "later": LATER, "images": IMAGES, "steps": STEPS, "controls": CONTROLS}
    return about | {"seeds": list(range(SEEDS)), "samples": rows}


def of(numbers: Numbers, kind: str) -> list[float]:
    return [row["faithfulness"][kind] for row in numbers["samples"]]


def faithful(numbers: Numbers) -> list[Line]:
    hybrids = of(numbers, "hybrids")
    lost = Sampled.difference(of(numbers, "mixed latents"), hybrids)
    random = Sampled.difference(hybrids, of(numbers, "random sets"))
    collages = Sampled.difference(hybrids, of(numbers, "collages"))
    text = (
        "faithfulness, 1 for an image that the generator makes itself and 0 for one no nearer to its own than base "
        f"and source are: hybrids {Sampled.of(hybrids):.3f}, own images of mixed latents {lost:+.3f} more, hybrids by "
        f"random sets of equal influence {Sampled.of(of(numbers, 'random sets')):.3f} (modules {random:+.3f}), "
        f"collages {Sampled.of(of(numbers, 'collages')):.3f} (modules {collages:+.3f}). "
        f"A search of {numbers['steps']} steps gives a lower bound"
    )
    repeats = f"{len(numbers['seeds'])} samples, {numbers['images']} pairs each, one training"
    # Faithful would be as near as own images are.
    return [Line(f"`{GENERATOR}`, three modules of `{LAYER}`, {repeats}", verdict([-lost.sign]), text)]


def free(numbers: Numbers) -> list[Line]:
    own = Sampled.of(row["interaction"] for row in numbers["samples"])
    less = Sampled.of(row["random_interaction"] - row["interaction"] for row in numbers["samples"])
    text = (
        f"interaction of two modules, 0 where what one changes does not depend on the other: {own:.3f}, which is "
        f"{less:.3f} less than that of random sets of as many channels or as much influence"
    )
    return [Line(f"the same, {numbers['later']} pairs in each sample", verdict([-own.sign]), text)]


STUDY = Study(
    "faithful",
    measure,
    (
        Row(
            "Def. 2, 4: modules combine freely, so that hybrids are faithful: images that the generator could have "
            "made",
            faithful,
        ),
        Row("Def. 2, beside it: what one module changes does not depend on the others", free),
    ),
    repeats=SEEDS,
)
