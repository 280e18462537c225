"""S003 §4.1: does a BEGAN need modules of two successive layers, because one has too little effect?"""

from __future__ import annotations

import numpy as np

import counterfactual_probe as cp

from ..row import Line, Numbers, Row, Study
from ..sampled import FAILS, HOLDS, Sampled, Verdict

DRAWS, PAIRS, LATER, MODULES = 6, 64, 64, 3
GENERATOR, LAYERS = "began-faces", ("blocks.2.3", "blocks.3.3")
ENOUGH = 0.5  # of the effect of both layers: with it, a layer alone has not too little


def measure() -> Numbers:
    """Influence of matched modules, of each layer alone and of both; mean |hybrid − base| in images of −1…1."""
    gen = cp.load(GENERATOR)
    maps = {layer: cp.InfluenceMap(gen, layer) for layer in LAYERS}
    together = cp.InfluenceMap(gen, list(LAYERS))
    draws = []
    for seed in range(DRAWS):
        first, second = (
            cp.ModuleFinder(MODULES, seed=seed).fit(maps[layer].attribute(n_pairs=PAIRS, seed=seed)) for layer in LAYERS
        )
        pairs = [unit for unit in cp.match_modules(first, second).units if all(unit[layer] for layer in LAYERS)]
        sets = [
            {layer: pair[layer] for layer in some} for pair in pairs for some in ((LAYERS[0],), (LAYERS[1],), LAYERS)
        ]
        influence = together.attribute(n_pairs=LATER, units=sets, seed=seed + 1000).influence.double().numpy()
        draws.append(influence.reshape(-1, 3).tolist())
    return {"draws": list(range(DRAWS)), "pairs": PAIRS, "later": LATER, "layers": list(LAYERS), "influence": draws}


def enough(numbers: Numbers) -> list[Line]:
    draws = [np.asarray(draw) for draw in numbers["influence"]]
    means = [Sampled.of(float(draw[:, place].mean()) for draw in draws) for place in range(3)]
    strongest = [Sampled.of(float(draw[draw[:, 2].argmax(), place]) for draw in draws) for place in range(3)]
    later = Sampled.of(float(draw[:, 1].mean() / draw[:, 2].mean()) for draw in draws)
    earlier = Sampled.of(float(draw[:, 0].mean() / draw[:, 2].mean()) for draw in draws)
    best = max(later, earlier, key=lambda one: one.mean)
    said: Verdict = FAILS if best.mean - best.margin > ENOUGH else HOLDS
    one, two = (f"`{layer}`" for layer in numbers["layers"])
    text = (
        f"influence of matched modules, mean of three: {means[0]:.3f} by {one} alone, {means[1]:.3f} by {two} alone, "
        f"{means[2]:.3f} by both; of the strongest pair {strongest[0]:.3f}, {strongest[1]:.3f}, {strongest[2]:.3f}. "
        f"{two} alone has {later:.2f} of the effect of both, {one} alone {earlier:.2f}"
    )
    repeats = f"{len(numbers['draws'])} samples of {numbers['pairs']} pairs, one training"
    return [Line(f"`{GENERATOR}`, {one} and {two}, {repeats}", said, text)]


STUDY = Study(
    "successive",
    measure,
    (Row("§4.1: one layer of a BEGAN has too little effect, two successive ones are needed", enough),),
    repeats=DRAWS,
)
