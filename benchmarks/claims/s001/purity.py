"""S001 §4.1: "excluding maps that are not pure comes at the cost of reducing the influence" of the modules."""

from __future__ import annotations

import numpy as np

import counterfactual_probe as cp

from ..row import Line, Numbers, Row, Study
from ..sampled import Sampled, verdict

DRAWS, PAIRS, LATER, CONTROLS = 5, 64, 64, 8
GENERATOR, LAYERS, MODULES = "vae-faces", ("decoder.level2", "decoder.level3"), 3
# By the signs of what the impure channels cost beyond random ones, over layers.
AFTER = {
    (-1, -1): "So leaving channels out costs influence, but leaving out impure ones costs less than random ones",
    (1, 1): "Leaving out impure channels costs more than leaving out random ones",
}
MIXED = "Whether impure channels cost more than random ones is undecided, or differs between the layers"
KEPT = 0.5  # share of a module's channels that are kept


def measure() -> Numbers:
    """For every sample and module, the influence of all its channels, of the pure half and of random halves."""
    gen = cp.load(GENERATOR)
    found: Numbers = {"draws": list(range(DRAWS)), "pairs": PAIRS, "later": LATER, "controls": CONTROLS, "layers": {}}
    for layer in LAYERS:
        influence = cp.InfluenceMap(gen, layer)
        found["layers"][layer] = [_draw(influence, seed) for seed in range(DRAWS)]
    return found


def _draw(influence: cp.InfluenceMap, seed: int) -> list[dict[str, float]]:
    maps = influence.attribute(n_pairs=PAIRS, seed=seed)
    finder = cp.ModuleFinder(MODULES, seed=seed).fit(maps)
    purity = finder.weights_.max(1) / np.maximum(finder.weights_.sum(1), 1e-12)
    rng = np.random.default_rng(seed)
    rows = []
    for module in range(MODULES):
        channels = np.flatnonzero(finder.labels_ == module)
        kept = int(np.ceil(KEPT * len(channels)))
        if not 0 < kept < len(channels):
            continue
        pure = channels[np.argsort(-purity[channels])[:kept]]
        halves = [rng.choice(channels, kept, replace=False) for _ in range(CONTROLS)]
        sets = [list(map(int, some)) for some in (channels, pure, *halves)]
        values = influence.attribute(n_pairs=LATER, units=sets, seed=seed + 1000).influence.double().tolist()
        rows.append(
            {"channels": len(channels), "all": values[0], "pure": values[1], "random": float(np.mean(values[2:]))}
        )
    return rows


def impure(numbers: Numbers) -> list[Line]:
    lost, beyond, said = [], [], []
    for layer, draws in numbers["layers"].items():
        pure, random = (
            Sampled.of(float(np.mean([row[what] / row["all"] for row in draw])) for draw in draws)
            for what in ("pure", "random")
        )
        more = Sampled.of(
            float(np.mean([(row["random"] - row["pure"]) / row["all"] for row in draw])) for draw in draws
        )
        lost.append(Sampled(1 - pure.mean, pure.margin, pure.n).sign)
        beyond.append(more.sign)
        said.append(f"`{layer}` the purer half {pure:.2f}, random halves {random:.2f} (difference {more:+.2f})")
    text = f"share of a module's influence that is left, mean over three modules: {'; '.join(said)}. " + AFTER.get(
        (min(beyond), max(beyond)), MIXED
    )
    repeats = f"{len(numbers['draws'])} samples of {numbers['pairs']} pairs"
    return [Line(f"`{GENERATOR}`, two layers, {repeats}", verdict(lost), text)]


STUDY = Study(
    "purity",
    measure,
    (Row("§4.1: leaving out impure maps reduces the influence of the modules", impure),),
    repeats=DRAWS,
)
