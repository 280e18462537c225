"""S001 §4.1, Fig. 6: are hybrids of the model with a tenth of β more artificial?"""

from __future__ import annotations

import warnings
from typing import Any

import torch

import counterfactual_probe as cp
from counterfactual_probe.fidelity.frechet import FewSamples

from ..row import Line, Numbers, Row, Study
from ..sampled import Sampled, verdict

SEEDS, IMAGES, PAIRS = 5, 128, 64
FULL, TENTH = "vae-faces", "vae-faces-sharp"
LAYER, MODULES = "decoder.level3", 3
PICTURES, POOL = "dcgan-faces", 512  # hybrids are made of encoded pictures, as in the paper
FEATURES = "efficientnet-lite0"


def measure() -> Numbers:
    """Precision and Fréchet distance of hybrids of encoded pictures among reconstructions, of both models."""
    pictures = cp.load(PICTURES)
    with torch.inference_mode():
        pool = torch.cat([pictures(pictures.sample(64, seed=99, start=start)) for start in range(0, POOL, 64)])
    about = {"seeds": list(range(SEEDS)), "images": IMAGES, "pairs": PAIRS, "features": FEATURES, "pool": POOL}
    return about | {name: _model(name, pool.clone()) for name in (FULL, TENTH)}


def _model(name: str, pool: torch.Tensor) -> list[Numbers]:
    gen: Any = cp.load(name)
    codes = gen.encode(pool)

    def sample_latents(n: int, rng: torch.Generator) -> torch.Tensor:
        drawn: torch.Tensor = codes[torch.randint(len(codes), (n,), generator=rng)]
        return drawn

    encoded = cp.wrap(gen.module, sample_latents, image_range=gen.image_range)
    features = cp.load_classifier(FEATURES)
    rows = []
    for seed in range(SEEDS):
        maps = cp.InfluenceMap(encoded, LAYER).attribute(n_pairs=PAIRS, seed=seed)
        modules = [unit for unit in cp.ModuleFinder(MODULES, seed=seed).fit(maps).unit_sets() if unit.size]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FewSamples)  # the row says how many images there were
            found = cp.FidelityTest(encoded, LAYER, features=features).measure(
                modules, n_images=IMAGES, resamples=0, seed=seed
            )
        inside, distance = found.inside.mean(1), found.distances[0]
        rows.append({
            "channels": [unit.size for unit in modules],
            "again": {"inside": float(inside[1]), "distance": float(distance[1])},
            "hybrids": {"inside": inside[2:].tolist(), "distance": distance[2:].tolist()},
        })  # fmt: skip
    return rows


def _lost(rows: list[Numbers]) -> list[float]:
    """For each seed, how much less often hybrids lie among reconstructions than other reconstructions do."""
    return [row["again"]["inside"] - sum(row["hybrids"]["inside"]) / len(row["hybrids"]["inside"]) for row in rows]


def _further(rows: list[Numbers]) -> list[float]:
    """For each seed, the Fréchet distance of hybrids over that of other reconstructions."""
    return [
        sum(row["hybrids"]["distance"]) / len(row["hybrids"]["distance"]) / row["again"]["distance"] for row in rows
    ]


def artificial(numbers: Numbers) -> list[Line]:
    full, tenth = numbers[FULL], numbers[TENTH]
    lost = Sampled.difference(_lost(tenth), _lost(full))
    further = Sampled.difference(_further(tenth), _further(full))
    one, two = (Sampled.of(_further(rows)) for rows in (tenth, full))
    text = (
        "precision lost by hybrids of encoded pictures, against other reconstructions: "
        f"{Sampled.of(_lost(tenth)):.3f} with a tenth of β and {Sampled.of(_lost(full)):.3f} with the full one "
        f"(difference {lost:+.3f}); Fréchet distance from reconstructions, over that of other reconstructions: "
        f"{one:.2f} and {two:.2f} (difference {further:+.2f}; features of EfficientNet-Lite0, "
        f"{numbers['images']} images in a group, so that distances are mostly chance). Pictures are drawn from "
        f"{numbers['pool']}, so that some are in both groups of reconstructions, which favours these over hybrids"
    )
    repeats = f"three modules of `{LAYER}`, {len(numbers['seeds'])} samples, one training of each"
    return [Line(f"`{FULL}`, `{TENTH}`, {repeats}", verdict([lost.sign, further.sign]), text)]


STUDY = Study(
    "artificial",
    measure,
    (Row("§4.1, Fig. 6: hybrids of the model with a tenth of β look slightly more artificial", artificial),),
    repeats=SEEDS,
)
